"""Weights that became far too large between two steps."""

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection


@kind(duration=1, size=30.0)
def weight_spike(injection: Injection) -> None:
    """Weights times `size`, between two steps."""
    parameters = injection.placed()

    def enlarge() -> None:
        for parameter in parameters.values():
            parameter.mul_(injection.fault.size)

    injection.before_forward(enlarge)

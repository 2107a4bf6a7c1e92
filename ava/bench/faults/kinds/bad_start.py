"""A training that begins with a far too high rate."""

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._rates import multiply_rates


@kind(at=1, duration=30, size=100.0)
def bad_start(injection: Injection) -> None:
    """The first `duration` attempts have `size` times their learning rates."""
    multiply_rates(injection)

"""A learning rate that is far too high for a while."""

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._rates import multiply_rates


@kind(duration=5, size=100.0)
def lr_spike(injection: Injection) -> None:
    """The optimizer steps with `size` times its learning rates; who reads them between steps sees nothing."""
    multiply_rates(injection)

"""A step that changes next to nothing: what a fault is that does no harm."""

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._rates import multiply_rates


@kind(duration=1, size=0.0)
def lost_step(injection: Injection) -> None:
    """The optimizer steps with `size` times its rates, which is 0: harmless, and so a control for other kinds."""
    multiply_rates(injection)

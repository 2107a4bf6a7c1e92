"""Gradients that are far too large, and finite."""

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection


@kind(duration=1, size=1e4)
def gradient_spike(injection: Injection) -> None:
    """Gradients times `size`."""
    injection.on_gradients(injection.placed(), lambda gradient: gradient * injection.fault.size)

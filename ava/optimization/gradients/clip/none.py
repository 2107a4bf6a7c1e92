"""No clipping."""

from __future__ import annotations

from ava.optimization.gradients.health.measurement import Measurement
from ava.registry import clip


@clip
def none(measured: Measurement, /) -> None:
    """None: gradients are measured and left as they are."""

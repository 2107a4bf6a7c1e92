"""Clipping of every element."""

from __future__ import annotations

import torch

from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.optimizers.engines.batch import local
from ava.registry import PositiveFloat, clip


@clip
def value(measured: Measurement, /, clip_norm: PositiveFloat = 1.0) -> None:
    """Value: every element limited by itself; the direction changes.

        g <- min(max(g, -clip_norm), clip_norm)

    What is not a number stays so.

    Args:
        measured: the gradients, changed in place.
        clip_norm: the largest absolute value that is let through.

    Reference: Mikolov 2012, "Statistical language models based on neural networks", section 3.3.2
    """
    elements = [local(gradient) for gradient in measured.gradients]
    if elements:
        torch._foreach_clamp_min_(elements, -clip_norm)
        torch._foreach_clamp_max_(elements, clip_norm)

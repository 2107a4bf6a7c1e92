"""Clipping by the global norm."""

from __future__ import annotations

from torch import Tensor

from ava.optimization.gradients.health.measurement import Measurement
from ava.registry import PositiveFloat, clip

EPSILON = 1e-6
"""As in torch's `clip_grad_norm_`, so that the numbers are the same."""


@clip
def norm(measured: Measurement, /, clip_norm: PositiveFloat = 1.0) -> Tensor:
    """Global norm: all gradients scaled together, so that the direction is kept.

        g <- g * min(1, clip_norm / (||g|| + 1e-6))

    Args:
        measured: the gradients and their norm.
        clip_norm: the largest norm that is let through.

    Returns:
        The factor, 0-dim, on the gradients' device; not read here.

    Reference: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063
    """
    return (clip_norm / (measured.norm + EPSILON)).clamp(max=1.0)

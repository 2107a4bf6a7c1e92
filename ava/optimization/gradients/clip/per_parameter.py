"""Clipping of every tensor by its own norm."""

from __future__ import annotations

import torch

from ava.optimization.gradients.clip.limit import limit
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.optimizers.engines.batch import local
from ava.registry import PositiveFloat, clip


@clip
def per_parameter(measured: Measurement, /, clip_norm: PositiveFloat = 1.0) -> None:
    """Per parameter: each tensor's norm limited by itself, so that one layer's spike leaves the others alone.

        g_i <- g_i * min(1, clip_norm / ||g_i||)

    Args:
        measured: the gradients, changed in place, and their norms.
        clip_norm: the largest norm of one tensor that is let through.

    Reference: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063, each tensor taken by itself
    """
    gradients = [local(gradient) for gradient in measured.gradients]
    if gradients:
        factors = limit(measured.norms, clip_norm).unbind()
        torch._foreach_mul_(gradients, [f.to(g.device) for f, g in zip(factors, gradients, strict=True)])

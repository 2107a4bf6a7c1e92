"""Clipping by the global norm."""

from __future__ import annotations

import torch
from torch import Tensor

from ava.optimization.gradients.clip.measure import global_norm, is_uniform
from ava.registry import PositiveFloat, clip


@clip
def norm(parameters: list[Tensor], /, clip_norm: PositiveFloat = 1.0) -> Tensor:
    """Global norm: all gradients scaled together, so that the direction is kept.

        g <- g * min(1, clip_norm / ||g||)

    Args:
        parameters: those with a gradient are measured and clipped in place.
        clip_norm: the largest norm that is let through.

    Returns:
        The norm before clipping, 0-dim, on the gradients' device; not read here.

    Reference: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not is_uniform(gradients):
        return torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
    total = global_norm(gradients)
    factor = (clip_norm / (total + 1e-6)).clamp_(max=1.0)
    torch._foreach_mul_(gradients, [factor] * len(gradients))
    return total

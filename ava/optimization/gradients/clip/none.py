"""No clipping."""

from __future__ import annotations

import torch
from torch import Tensor

from ava.optimization.gradients.clip.measure import global_norm, is_uniform
from ava.registry import clip


@clip
def none(parameters: list[Tensor], /) -> Tensor:
    """None: gradients are measured and left as they are.

    Args:
        parameters: those with a gradient are measured.

    Returns:
        The global norm of the gradients, 0-dim, on their device; not read here.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    return global_norm(gradients) if is_uniform(gradients) else torch.nn.utils.get_total_norm(gradients)

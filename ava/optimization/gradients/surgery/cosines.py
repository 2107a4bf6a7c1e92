"""The angles between gradients, from their inner products."""

from __future__ import annotations

import torch
from torch import Tensor


def cosines(gram: Tensor) -> Tensor:
    """(T, T), the cosines of every two gradients: 0 beside a gradient that is 0, and 1 on the diagonal.

        G_ij / sqrt(G_ii G_jj)

    Args:
        gram: (T, T), their inner products; what is not finite there has no cosine that is a number.
    """
    norms = gram.diagonal().clamp(min=0).sqrt()
    lengths = torch.outer(norms, norms)
    found = torch.where(lengths == 0, torch.zeros_like(gram), gram / lengths).clamp(-1.0, 1.0)
    return found.fill_diagonal_(1.0)

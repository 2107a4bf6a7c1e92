"""The plain sum, gradient by gradient."""

from __future__ import annotations

import torch

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.registry import surgery


@surgery
def sum(objectives: Objectives, /) -> Weights:
    """Sum: every gradient counts once. The result of `none`, with the conflicts measured.

        d = sum_i g_i

    Args:
        objectives: T of them, with their Gram matrix.

    Returns:
        (T,) ones.
    """
    assert objectives.gram is not None, "a method from inner products needs the Gram matrix"
    return torch.ones(len(objectives.gram), dtype=torch.float64)

"""UPGrad: each gradient moved to the nearest direction that no objective opposes."""

from __future__ import annotations

import numpy as np

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.nonnegative import minimise_nonnegative
from ava.optimization.gradients.surgery.solvers.weighing import Array, among_nonzero, cosines, lengths, weights_of
from ava.registry import surgery


@surgery
def upgrad(objectives: Objectives, /) -> Weights:
    """Unconflicting projection of gradients: all are projected on the cone of directions without conflict, and added.

        d = sum_i argmin |h - g_i|^2 over <h, g_j> >= 0 for all j;  h = J'v, v = argmin v'Gv over v >= e_i

    Args:
        objectives: T of them, with their Gram matrix.

    Returns:
        (T,) at least 1: all 1 where no two gradients conflict. d conflicts with no gradient. The paper's mean is
        1 / T of this.

    Reference: Quinton & Rey 2024, https://arxiv.org/abs/2406.16232
    """
    return weights_of(objectives, among_nonzero(_projected))


def _projected(gram: Array) -> Array:
    """With v = e_i + |g_i| x / |g|, x >= 0, the program has the cosines for matrix and one of their rows for vector."""
    matrix, norms = cosines(gram), lengths(gram)
    added = minimise_nonnegative(matrix, -matrix)
    return np.asarray(1 + norms @ added / norms)

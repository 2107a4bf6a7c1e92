"""IMTL-G: a direction with the same component along every gradient."""

from __future__ import annotations

import numpy as np

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.weighing import Array, among_nonzero, cosines, lengths, weights_of
from ava.registry import surgery

_NULL = 1e-10
"""Eigenvalues of the cosines below it are zero; and so is a share of ones in their eigenvectors."""


@surgery
def imtl_g(objectives: Objectives, /) -> Weights:
    """Impartial multi-task learning, gradients: the combination whose projections on all gradients are equal.

        <d, g_i / |g_i|> the same for all i:  w_i = (C^-1 1)_i / |g_i|, brought to sum T; C has the cosines

    The direction does not change when single gradients are scaled. Weights may be negative. Those of the paper have
    sum 1 and can, for three gradients or more, turn the direction round; here it is never turned.

    Args:
        objectives: T of them, with their Gram matrix.

    Returns:
        (T,) of sum T, or -T where a sum of T would ascend. For linearly dependent gradients the limit of C + e I for
        e to 0: equal projections where there are any, on opposite gradients zero.

    Reference: Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr
    """
    return weights_of(objectives, among_nonzero(_impartial))


def _impartial(gram: Array) -> Array:
    values, vectors = np.linalg.eigh(cosines(gram))
    ones = vectors.sum(axis=0)
    null = values <= _NULL * len(gram)
    if ones[null] @ ones[null] > _NULL * len(gram):
        solution = vectors[:, null] @ ones[null]
    else:
        solution = vectors[:, ~null] @ (ones[~null] / values[~null])
    weights = solution / lengths(gram)
    total = max(abs(weights.sum()), _NULL * np.abs(weights).sum())
    return np.asarray(weights * (len(weights) / total))

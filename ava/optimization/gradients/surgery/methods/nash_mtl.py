"""Nash-MTL: the bargaining solution."""

from __future__ import annotations

import numpy as np

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.bargaining import bargain
from ava.optimization.gradients.surgery.solvers.weighing import Array, among_nonzero, cosines, lengths, weights_of
from ava.registry import surgery


@surgery
def nash_mtl(objectives: Objectives, /) -> Weights:
    """Nash bargaining: the direction in which the product of all objectives' improvements is largest.

        G w = ||G||_F / w,  G the Gram matrix;  then <g_i, d> = ||G||_F / w_i > 0 for all i

    The paper's is G w = 1 / w. Dividing G by its Frobenius norm, as its code does, lets the step grow with the
    gradients and gives equal gradients weight 1; |d|^2 = T ||G||_F. The direction does not change when single gradients
    are scaled. The clip at norm 1 of that code is left to `clip`.

    Args:
        objectives: T of them, with their Gram matrix.

    Returns:
        (T,) positive. They grow without bound where a convex combination of the gradients comes near zero; where it is
        zero there is no solution, and they are that combination, of sum T.

    Reference: Navon et al. 2022, https://arxiv.org/abs/2202.01017
    """
    return weights_of(objectives, among_nonzero(_bargained))


def _bargained(gram: Array) -> Array:
    matrix, size = cosines(gram), len(gram)
    x = bargain(matrix)
    weights = x / lengths(gram)
    if x @ matrix @ x < size - 0.5:  # each gradient of a vanishing combination takes 1 away
        return np.asarray(weights * (size / weights.sum()))
    return np.asarray(weights * np.sqrt(np.linalg.norm(gram)))

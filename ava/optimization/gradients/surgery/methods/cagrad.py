"""CAGrad: near the mean gradient, the best for the objective it is worst for."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.weighing import weights_of
from ava.optimization.gradients.surgery.solvers.worst_improvement import correction
from ava.registry import NonNegativeFloat, surgery


@surgery
def cagrad(
    objectives: Objectives, /, c: NonNegativeFloat = 0.5, rescale: Literal["none", "linear", "quadratic"] = "none"
) -> Weights:
    """Conflict-averse gradient descent: the largest improvement of the worst objective, near the mean gradient g_0.

        d = argmax min_i <g_i, d> over |d - g_0| <= c |g_0|,  that is  d = g_0 + c |g_0| / |g_w| g_w

    The paper's d is (1 + c) g_0 where the gradients agree, which is a larger learning rate. Its authors' code divides,
    by 1 + c^2 or 1 + c; the latter gives d = g_0 there. The direction is the same.

    Args:
        objectives: T of them, with their Gram matrix.
        c: how far from the mean gradient. 0 is the plain sum; below 1 the mean loss still converges; beyond, the
            direction becomes that of `mgda`.
        rescale: divide by nothing, by 1 + c, or by 1 + c^2.

    Returns:
        (T,) T times d's weights. Where a convex combination g_w vanishes the formula does not hold: d is the
        solution nearest to g_0 then.

    Reference: Liu et al. 2021, https://arxiv.org/abs/2110.14048
    """
    divisor = {"none": 1.0, "linear": 1 + c, "quadratic": 1 + c**2}[rescale]
    return weights_of(objectives, lambda gram: np.asarray((1 + len(gram) * correction(gram, c)) / divisor))

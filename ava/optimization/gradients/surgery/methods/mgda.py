"""MGDA: the shortest convex combination of the gradients."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ava.errors import InputError
from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.min_norm import min_norm_point
from ava.optimization.gradients.surgery.solvers.weighing import ZERO, Array, lengths, weights_of
from ava.registry import surgery

_FLOOR = 1e-12
"""The least divisor as a share of the largest, for a loss that reached zero."""


@surgery
def mgda(objectives: Objectives, /, normalization: Literal["none", "l2", "loss", "loss+"] = "none") -> Weights:
    """Multiple-gradient descent: the shortest vector in the convex hull, which descends on all objectives or is zero.

        d = T sum_i w_i g_i,  w = argmin |sum_i w_i g_i|^2 over w >= 0, sum(w) = 1

    With divisors s_i the hull is that of g_i / s_i. The weights are those of the g_i then, brought to sum T: the
    direction is that of the hull's shortest vector, the step does not depend on the units of the divisors.

    Args:
        objectives: T of them, with their Gram matrix; for "loss" and "loss+" with their losses, not negative.
        normalization: what each gradient is divided by: nothing; its norm; its loss; both.

    Returns:
        (T,) non-negative, of sum T. A zero gradient is a vanishing combination by itself: d is zero then.

    Raises:
        InputError: the losses are needed and not known, or one is negative.

    Reference: Désidéri 2012, https://doi.org/10.1016/j.crma.2012.03.014;
        Sener & Koltun 2018, https://arxiv.org/abs/1810.04650
    """
    losses = _losses(objectives, normalization) if normalization.startswith("loss") else None

    def solve(gram: Array) -> Array:
        norms = lengths(gram)
        divisors = np.ones(len(gram)) if losses is None else losses
        if normalization in ("l2", "loss+"):
            divisors = divisors * np.where(norms > ZERO, norms, 1.0)
        rows = gram / divisors[:, None] / divisors
        weights = min_norm_point(rows / rows.diagonal().max()) / divisors
        return np.asarray(weights * (len(weights) / weights.sum()))

    return weights_of(objectives, solve)


def _losses(objectives: Objectives, normalization: str) -> Array:
    """The losses as divisors, the largest 1."""
    if objectives.losses is None:
        raise InputError("needs the values of the losses.", key="normalization", value=normalization, hint="Use `l2`.")
    losses = np.asarray(objectives.losses.detach().double().numpy())
    if (losses < 0).any():
        raise InputError(
            f"gradients can be divided by losses >= 0 only, not {losses.min():.3g}.",
            key="normalization", value=normalization, hint="Use `l2`.",
        )  # fmt: skip
    largest = losses.max(initial=0.0)
    with np.errstate(invalid="ignore"):  # an infinite loss has no weight: not a number, for a guard to see
        return np.asarray((losses / largest).clip(min=_FLOOR)) if largest > 0 else np.ones_like(losses)

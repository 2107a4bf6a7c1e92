"""The shortest vector in the convex hull of the gradients, exactly.

    minimise w'Gw over w >= 0, sum(w) = 1

Over w >= 0 alone, the minimum of w'Gw + s^2 (sum(w) - 1)^2 is a multiple of it for any s > 0: with the sum held at t,
both terms are least at t times the solution. That is a program over the non-negative orthant. It is solved in the
variables x_i = |g_i| w_i, whose matrix has cosines for entries, so that gradients of very different lengths do no
harm, and with the length of the shortest gradient for s, which the solution does not exceed.
"""

from __future__ import annotations

import numpy as np

from ava.optimization.gradients.surgery.solvers.nonnegative import minimise_nonnegative
from ava.optimization.gradients.surgery.solvers.weighing import ZERO, Array, cosines, lengths


def min_norm_point(gram: Array) -> Array:
    """Weights of the shortest vector in the convex hull.

    Args:
        gram: (T, T), the longest gradient of length 1.

    Returns:
        (T,) non-negative, of sum 1; all on the zero gradients where there are any.

    Reference: Désidéri 2012, https://doi.org/10.1016/j.crma.2012.03.014
    """
    norms = lengths(gram)
    zero = norms <= ZERO
    if zero.any():
        return np.asarray(zero / zero.sum())
    if len(gram) == 2:
        return _of_two(gram)
    relative = norms.min() / norms
    scaled = minimise_nonnegative(cosines(gram) + np.outer(relative, relative), relative[None])[0]
    weights = scaled * relative
    return np.asarray(weights / weights.sum())


def _of_two(gram: Array) -> Array:
    """The foot of the perpendicular on the line through both, or the nearer end of the segment."""
    (first, product), (_, second) = gram
    distance = first - 2 * product + second
    if distance <= 0:
        return np.array([0.5, 0.5])
    # Not 1 minus the other: a small share, of the longer one, would be lost to rounding.
    return np.asarray(np.array([second - product, first - product]).clip(0.0, distance) / distance)

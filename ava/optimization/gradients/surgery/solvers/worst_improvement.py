"""The direction near the mean gradient that is best for the objective it is worst for.

    maximise min_i <g_i, d> over |d - g_0| <= c |g_0|, with g_0 the mean gradient

Some t separates the objectives: those with <g_i, d> = t carry the correction u >= 0 in d = g_0 + sum_i u_i g_i, the
others have more and carry none. For a given t that is the program

    minimise 1/2 |g_0 + J'u|^2 - t sum(u) over u >= 0

whose correction |J'u| grows with t, from zero at the least <g_i, g_0>. The t sought is where it has length c |g_0|. As
long as the same objectives carry, u is linear in t and the equation quadratic; so a few programs suffice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ava.optimization.gradients.surgery.solvers.min_norm import min_norm_point
from ava.optimization.gradients.surgery.solvers.nonnegative import minimise_nonnegative
from ava.optimization.gradients.surgery.solvers.weighing import ZERO, Array, cosines, lengths

_PROGRAMS = 60
_CLOSE = 1e-10
_VANISHING = 1e-13


@dataclass(frozen=True)
class _Problem:
    """In the variables x_i = |g_i| u_i.

    Attributes:
        norms: (k,) of the gradients that are not zero.
        matrix: (k, k), their cosines.
        mean: (k,) their components along the mean gradient.
        radius: c |g_0|, the length the correction is to have.
    """

    norms: Array
    matrix: Array
    mean: Array
    radius: float

    def solve(self, worst: float, start: Array) -> Array:
        """The x of t = `worst`, looked for from `start`."""
        linear = worst / self.norms - self.mean
        return np.asarray(minimise_nonnegative(self.matrix, linear[None], start[None])[0])

    def length(self, x: Array) -> float:
        """|J'u|."""
        return math.sqrt(max(float(x @ self.matrix @ x), 0.0))

    def predict(self, x: Array) -> float:
        """The t that would give the radius if the objectives that carry in x were those; not a number for none."""
        carrying = np.flatnonzero(x > 0)
        if not len(carrying):
            return math.nan
        matrix = self.matrix[np.ix_(carrying, carrying)] + _VANISHING * np.eye(len(carrying))
        sides = np.stack([1 / self.norms[carrying], self.mean[carrying]], axis=1)
        solved = np.linalg.solve(matrix, sides)
        (square, mixed), (_, constant) = sides.T @ solved
        discriminant = float(mixed**2 - square * (constant - self.radius**2))
        return (float(mixed) + math.sqrt(discriminant)) / float(square) if discriminant >= 0 else math.nan


def correction(gram: Array, c: float) -> Array:
    """What is added to the mean's weights.

        d = sum_i (1/T + u_i) g_i

    Args:
        gram: (T, T), the longest gradient of length 1.
        c: the size of the correction as a share of the mean gradient's length.

    Returns:
        (T,) u >= 0. Where the gradients have a vanishing convex combination and no correction improves on
        min_i <g_i, d> = 0, the shortest that reaches it.

    Reference: Liu et al. 2021, https://arxiv.org/abs/2110.14048
    """
    size, norms = len(gram), lengths(gram)
    kept = np.flatnonzero(norms > ZERO)
    matrix = cosines(gram[np.ix_(kept, kept)])
    share = norms[kept] / size
    mean = matrix @ share
    mean_square = float(share @ mean)
    if c == 0 or mean_square <= _VANISHING * float(share @ share):
        return np.zeros(size)
    radius = c * math.sqrt(mean_square)
    problem = _Problem(norms[kept], matrix, mean, radius)
    shortest = min_norm_point(gram)
    square = float(shortest @ gram @ shortest)
    if square <= _VANISHING * float(shortest**2 @ gram.diagonal()):
        square = 0.0
    # No direction of the ball, none longer than (1 + c) |g_0|, has a larger product with the shortest.
    best = math.sqrt(square) * (1 + c) * math.sqrt(mean_square)
    result = np.zeros(size)
    result[kept] = _search(problem, best, shortest[kept] * norms[kept]) / norms[kept]
    return result


def _search(problem: _Problem, best: float, start: Array) -> Array:
    """The x whose correction has the radius, or that of t = `best`, which no direction exceeds, where it is shorter."""
    low, high = float((problem.mean * problem.norms).min()), best
    if high <= low:
        return np.zeros(len(problem.norms))
    x = problem.solve(high, start)
    if problem.length(x) <= problem.radius * (1 + _CLOSE):
        return x
    for _ in range(_PROGRAMS):
        guess = problem.predict(x)
        guess = guess if low < guess < high else (low + high) / 2
        x = problem.solve(guess, x)
        length = problem.length(x)
        if abs(length - problem.radius) <= _CLOSE * problem.radius:
            break
        low, high = (guess, high) if length < problem.radius else (low, guess)
    return x

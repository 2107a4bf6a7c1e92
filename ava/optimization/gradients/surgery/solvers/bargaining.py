"""The Nash bargaining solution between gradients, by Newton's method.

    minimise 1/2 x'Cx - sum(log x) over x > 0, with C the cosines; where it is stationary, (Cx)_i = 1 / x_i

The objective is strictly convex and self-concordant, so Newton's method with a line search reaches the minimum from
anywhere, in about ten steps. If a combination x >= 0 of the gradients is zero, the objective falls without bound along
it: the small term on the diagonal then lets x end on such a combination.
"""

from __future__ import annotations

import numpy as np

from ava.optimization.gradients.surgery.solvers.weighing import Array

_DIAGONAL = 1e-10
_STEPS = 100
_CONVERGED = 1e-24
"""The square of the Newton decrement: twice what the objective can still fall by."""


def bargain(cosines: Array) -> Array:
    """The solution of (Cx)_i = 1 / x_i.

    Args:
        cosines: (T, T) of every two gradients.

    Returns:
        (T,) positive. x'Cx is T; where a combination of gradients is zero it is less by their number, and x is
        nearly that combination.
    """
    matrix = cosines + _DIAGONAL * np.eye(len(cosines))
    x = np.full(len(matrix), np.sqrt(len(matrix) / max(matrix.sum(), _DIAGONAL)))
    for _ in range(_STEPS):
        gradient = matrix @ x - 1 / x
        # In units of x the Hessian is at least the identity: no step is lost to rounding where x is large.
        hessian = matrix * np.outer(x, x) + np.eye(len(x))
        direction = x * np.linalg.solve(hessian, -x * gradient)
        decrement = -gradient @ direction
        if not decrement > _CONVERGED:
            break
        x = x + _line_search(matrix, x, direction, decrement) * direction
    return x


def _line_search(matrix: Array, x: Array, direction: Array, decrement: float) -> float:
    """How far to go: the whole Newton step, or half, a quarter, ... of it until the objective falls in proportion."""
    bound = (-direction / x).max()
    step = 1.0 if bound < 0.9 else 0.9 / bound
    if decrement < 0.05:
        return step  # here the whole step is proven to converge, and the fall drowns in rounding
    start = _objective(matrix, x)
    for _ in range(50):
        if _objective(matrix, x + step * direction) <= start - 0.1 * step * decrement:
            break
        step /= 2
    return float(step)


def _objective(matrix: Array, x: Array) -> float:
    return float(x @ matrix @ x / 2 - np.log(x).sum())

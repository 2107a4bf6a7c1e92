"""Quadratic programs over the non-negative orthant, exactly, by an active-set method.

    minimise 1/2 x'Ax - b'x over x >= 0

Variables are free or fixed at zero. A step solves the linear system of the free ones; if that would make some
negative, it goes only until the first reaches zero, and fixes it; else the fixed variable along which the objective
falls most is freed, until there is none. The objective falls with every step, so no set comes twice and it ends after
finitely many (Lawson & Hanson 1974, chapter 23). Several programs with one matrix are solved side by side.

Linearly dependent gradients make A singular. Then a proximal term picks the solution of least length, so that equal
gradients get equal weights; repeating it from its own result takes its effect on the solution away.
"""

from __future__ import annotations

import numpy as np

from ava.optimization.gradients.surgery.solvers.weighing import Array, Mask

_PROXIMAL = 1e-9
_ROUNDS = 3
_TOLERANCE = 1e-13


def minimise_nonnegative(matrix: Array, linear: Array, start: Array | None = None) -> Array:
    """The minimum over x >= 0 of 1/2 x'Ax - b'x, for every row b of `linear`.

    Args:
        matrix: (T, T) positive semidefinite, with a diagonal of about 1.
        linear: (K, T).
        start: (K, T) non-negative, from where to look: what is positive there is free at first. None for zero.

    Returns:
        (K, T); of several solutions the shortest, up to a part in 1e5.
    """
    proximal = matrix + _PROXIMAL * np.eye(len(matrix))
    solution = np.zeros_like(linear) if start is None else start
    solution, free = _active_set(proximal, linear, solution, solution > 0)
    for _ in range(_ROUNDS - 1):
        solution, free = _active_set(proximal, linear + _PROXIMAL * solution, solution, free)
    return solution


def _active_set(matrix: Array, linear: Array, x: Array, free: Mask) -> tuple[Array, Mask]:
    """The minimum of every program from feasible points `x` with the variables in `free` free, and those free there."""
    num_programs, size = linear.shape
    every = np.arange(num_programs)
    spent = np.zeros_like(free)
    scale = np.abs(linear).max(axis=1, keepdims=True)
    for _ in range(20 + 10 * size):  # as a rule about `size`; rounding cannot make it endless
        target = _on_free(matrix, linear, free)
        negative = free & (target <= 0)
        share = np.divide(x, x - target, out=np.where(negative, 0.0, np.inf), where=negative & (x > 0))
        step = share.min(axis=1, keepdims=True).clip(max=1.0)
        stopped = negative & (share <= step)
        spent |= stopped & (x <= 0)  # rounding alone freed it: a descent direction leads inside
        x = np.where(free & ~stopped, x + step * (target - x), 0.0)
        free = free & ~stopped
        descent = np.where(free | spent, -np.inf, linear - x @ matrix)
        best = descent.argmax(axis=1)
        threshold = _TOLERANCE * (scale + np.abs(x).max(axis=1, keepdims=True))[:, 0]
        blocked = negative.any(axis=1)
        freed = ~blocked & (descent[every, best] > threshold)
        free[every[freed], best[freed]] = True
        if not (freed | blocked).any():
            break
    return x, free


def _on_free(matrix: Array, linear: Array, free: Mask) -> Array:
    """The stationary point of every program with its other variables zero."""
    systems = np.where(free[:, :, None] & free[:, None, :], matrix, np.eye(len(matrix)))
    return np.asarray(np.linalg.solve(systems, np.where(free, linear, 0.0)[:, :, None])[:, :, 0])

"""Adam down a landscape, with the two gradients combined by a surgery method."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ava.bench.landscape_problems import Landscape, Pair, Point, Values
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.objectives import Objectives
from ava.optimization.gradients.surgery.rows import Rows

Combine = Callable[[Values, int], Pair]
_BETAS, _EPS = (0.9, 0.999), 1e-8
_PATIENCE, _REST = 5_000, 0.01
"""Who has arrived and moved no farther than `_REST` in `_PATIENCE` steps stays."""
_DRAWN = 1_000
"""Points of a trajectory that are kept."""


@dataclass(frozen=True)
class Descent:
    """One way down.

    Attributes:
        start: where it began.
        end: where it ended.
        steps: taken.
        has_arrived: whether the end is where the paper says that one should end.
        path: points on the way, start and end included.
    """

    start: Point
    end: Point
    steps: int
    has_arrived: bool
    path: list[Point]


def descend(landscape: Landscape, method: str, start: Point, steps: int, **options: Any) -> Descent:
    """Follow a method until it rests at the goal, or for all steps.

    Args:
        landscape: the problem.
        method: one of `list_surgery()`.
        start: where to begin.
        steps: the most to take.
        options: the method's own.
    """
    combine = _combination(method, options)
    x, y = start
    first, second = [0.0, 0.0], [0.0, 0.0]
    path, resting = [start], start
    every = max(1, steps // _DRAWN)
    for step in range(1, steps + 1):
        moves = _adam(combine(landscape.evaluate((x, y)), step - 1), first, second, step, landscape.lr)
        x, y = x - moves[0], y - moves[1]
        if step % every == 0:
            path.append((x, y))
        if step % _PATIENCE == 0:
            if landscape.has_arrived((x, y)) and math.dist((x, y), resting) < _REST:
                break
            resting = (x, y)
    return Descent(start, (x, y), step, landscape.has_arrived((x, y)), [*path, (x, y)])


def _adam(gradient: Pair, first: list[float], second: list[float], step: int, lr: float) -> list[float]:
    """The distances to move, over both numbers; the moments are updated in place."""
    moves = []
    for axis, slope in enumerate(gradient):
        first[axis] = _BETAS[0] * first[axis] + (1 - _BETAS[0]) * slope
        second[axis] = _BETAS[1] * second[axis] + (1 - _BETAS[1]) * slope * slope
        mean, square = first[axis] / (1 - _BETAS[0] ** step), second[axis] / (1 - _BETAS[1] ** step)
        moves.append(lr * mean / (math.sqrt(square) + _EPS))
    return moves


def _combination(name: str, options: dict[str, Any]) -> Combine:
    """What a method makes of two gradients, as a function of the values at a point and the steps taken."""
    method, kind = bind(name, **options), needs(name)

    def of_rows(values: Values, step: int) -> Pair:
        rows = [[torch.tensor(gradient, dtype=torch.float64)] for gradient in values.gradients]
        x, y = method(Rows(rows, step=step))[0].tolist()
        return x, y

    def of_weights(values: Values, step: int) -> Pair:
        a, b = values.gradients
        gram = None if kind == "losses" else _gram(a, b)
        losses = torch.tensor(values.losses, dtype=torch.float64)
        u, v = method(Objectives(gram, losses, step)).tolist()
        return u * a[0] + v * b[0], u * a[1] + v * b[1]

    return of_rows if kind == "rows" else of_weights


def _gram(a: Pair, b: Pair) -> torch.Tensor:
    product = a[0] * b[0] + a[1] * b[1]
    return torch.tensor(
        [[a[0] * a[0] + a[1] * a[1], product], [product, b[0] * b[0] + b[1] * b[1]]], dtype=torch.float64
    )

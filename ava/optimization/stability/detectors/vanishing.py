"""Gradients that have all but gone."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt, Lt

from ava.optimization.stability.operands import log, minimum, where
from ava.optimization.stability.seen import Seen
from ava.registry import PositiveInt, detector


@detector
class Vanishing:
    """Vanishing: the gradient norm stays far below its long-term level, or is 0.

        steps <- steps + 1 where ||g|| < share * usual, else 0
        severity = min(1, steps / (2 * patience)), 0 before `patience`

    It warns; it says nothing about a single step. The usual norm is a slow mean of the logarithm that leaves small
    norms out, so it does not follow them down.

    Args:
        share: of the usual norm, below which a norm has vanished.
        patience: steps below it that are no cause yet.
    """

    def __init__(self, /, share: Annotated[float, Gt(0), Lt(1)] = 1e-3, patience: PositiveInt = 20) -> None:
        self.depth, self.patience = log(share), float(patience)
        self.memory: dict[str, Any] = {"usual": 0.0, "count": 0.0, "steps": 0.0}

    def __call__(self, seen: Seen, /) -> Any:
        """Count the step; the severity, in [0, 1]."""
        usual, count, steps = self.memory["usual"], self.memory["count"], self.memory["steps"]
        depth = where(count > 0, seen.gradient.x - usual, 0.0 * usual)
        has_gone = seen.is_finite & ((depth < self.depth) | seen.is_zero)
        learns = seen.gradient.is_known & (depth >= self.depth) & (seen.gradient.alarm <= 0)
        weight = 1.0 / (minimum(count, 199.0) + 1.0)
        self.memory["usual"] = where(learns, usual + weight * (seen.gradient.x - usual), usual)
        self.memory["count"] = where(learns, count + 1.0, count)
        steps = where(has_gone, steps + 1.0, where(seen.is_finite, 0.0 * steps, steps))
        self.memory["steps"] = steps
        return where(steps > self.patience, minimum(0.5 * steps / self.patience, 1.0), 0.0 * steps)

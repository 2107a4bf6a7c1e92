"""A loss that no longer falls."""

from __future__ import annotations

from typing import Any

from ava.optimization.stability.operands import clamp, maximum, minimum, where
from ava.optimization.stability.seen import Seen
from ava.registry import PositiveInt, detector

WINDOW = 50.0
"""Losses that the mean goes over."""


@detector
class Stagnation:
    """Stagnation: the loss has not improved beyond its noise over a long window.

        mean <- mean + (log loss - mean) / 50
        best <- mean, since <- 0  where mean < best - 3 deviation / sqrt(50)
        severity = clip(since / patience - 1, 0, 1)

    It warns; a training that has converged stagnates too.

    Args:
        patience: steps without improvement that are no cause yet; twice as many are a whole one.
    """

    def __init__(self, /, patience: PositiveInt = 500) -> None:
        self.patience = float(patience)
        self.memory: dict[str, Any] = {"mean": 0.0, "best": 0.0, "count": 0.0, "since": 0.0}

    def __call__(self, seen: Seen, /) -> Any:
        """Take up the loss; the severity, in [0, 1]."""
        mean, best, count, since = (self.memory[name] for name in ("mean", "best", "count", "since"))
        loss = seen.loss
        learns = loss.is_known & (loss.alarm <= 0)
        mean = where(learns, mean + (loss.x - mean) / (minimum(count, WINDOW - 1.0) + 1.0), mean)
        margin = 3.0 * maximum(loss.deviation, loss.kind.floor) / WINDOW**0.5
        is_better = learns & ((count < WINDOW) | (mean < best - margin))
        self.memory |= {
            "mean": mean,
            "best": where(is_better, mean, best),
            "count": where(learns, count + 1.0, count),
            "since": (since := where(is_better, 0.0 * since, where(learns, since + 1.0, since))),
        }
        return clamp(since / self.patience - 1.0, 0.0, 1.0)

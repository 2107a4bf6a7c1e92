"""Counts attempts: steps of the optimizer that were really tried, whatever became of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ava.bench.faults.parts import Parts


class Clock:
    """Which attempt it is.

    Attributes:
        attempt: the one that comes, or that is under way; from 1.
    """

    def __init__(self, parts: Parts, undo: ExitStack) -> None:
        self.attempt = 1
        if parts.scaler is None:
            undo.callback(parts.optimizer.register_step_post_hook(lambda *_: self._tick()).remove)
        else:
            self._follow(parts.scaler, undo)

    def _tick(self) -> None:
        self.attempt += 1

    def _follow(self, scaler: Any, undo: ExitStack) -> None:
        """A scaler leaves the optimizer out where a gradient overflowed; that was an attempt all the same."""
        update: Callable[..., None] = scaler.update

        def counted(*arguments: Any, **named: Any) -> None:
            update(*arguments, **named)
            self._tick()

        scaler.update = counted
        undo.callback(delattr, scaler, "update")

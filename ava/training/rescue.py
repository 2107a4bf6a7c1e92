"""What is done about steps whose gradient was not finite. The optimizer has left them out already.

    skip      go on
    raise     end the run
    rollback  go back to where the log was last read, and on with the samples that come next

All ranks see the same gradients, so all do the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ava import rng
from ava.optimization.snapshot import Snapshot, Stateful
from ava.training.health import NonFinite
from ava.training.state import Run


@dataclass(frozen=True)
class Answer:
    """What was done about one or several such steps.

    Attributes:
        action: "skip", "raise" or "rollback".
        gave_up: that there were too many in a row ended the run.
    """

    action: str
    gave_up: bool = False


class Rescue:
    """Answers to what the journal found.

    Args:
        run: what is trained; changed in place by a rollback.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._kept: Snapshot | None = None
        self._random: dict[str, Any] = {}
        self._step = run.step

    def keep(self) -> None:
        """Remember the run as it stands, where a rollback may want it; called where everything is known to be sound."""
        if self.run.watch.on_nonfinite != "rollback":
            return
        self._kept, self._random, self._step = snapshot(self.run), rng.capture(), self.run.step
        self.run.rollbacks = 0

    def answer(self, wrong: Sequence[NonFinite]) -> list[Answer]:
        """What to do about each, in order; a rollback is done when this returns."""
        watch = self.run.watch
        if watch.on_nonfinite == "raise":
            return [Answer("raise")]
        if watch.on_nonfinite == "skip":
            return [_skip(one, watch.max_consecutive) for one in wrong]
        self.run.rollbacks += 1
        if self.run.rollbacks > watch.max_consecutive or self._kept is None:
            return [Answer("raise", gave_up=True)]
        self._go_back()
        return [Answer("rollback")] * len(wrong)

    def _go_back(self) -> None:
        """Everything as it was, save the position in the data."""
        assert self._kept is not None
        self._kept.restore()
        rng.restore(self._random)
        self.run.step, self.run.unheard, self.run.nonfinite_in_a_row = self._step, [], 0


def snapshot(run: Run) -> Snapshot:
    """Everything that a step changes, save counters, the position in the data and random numbers."""
    parts = (run.scheduler, run.ema, run.clip, run.surgery)
    return Snapshot(run.model, run.optimizer, *(part for part in parts if isinstance(part, Stateful)))


def _skip(one: NonFinite, allowed: int) -> Answer:
    return Answer("raise", gave_up=True) if one.in_a_row > allowed else Answer("skip")

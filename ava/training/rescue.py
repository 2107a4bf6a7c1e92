"""What is done about steps whose gradient was not finite. The optimizer has left them out already.

    skip      go on
    raise     end the run
    rollback  go back to where the log was last read, and on with the samples that come next

All ranks see the same gradients, so all do the same. With `recovery` they are told of here, and answered there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ava import rng
from ava.checkpoint.folder import latest
from ava.errors import TrainingFailed
from ava.optimization.snapshot import Snapshot
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.training.health import NonFinite
from ava.training.journal import Journal
from ava.training.state import Run


class Rescue:
    """Answers to what the journal found.

    Args:
        run: what is trained; changed in place by a rollback.
        folder: the run directory.
        listeners: who is told; empty on ranks other than 0.
        incidents: where it is written; None on ranks other than 0.
    """

    def __init__(self, run: Run, folder: Path, listeners: Sequence[Listener], incidents: IncidentLog | None) -> None:
        self.run, self.folder, self.listeners, self.incidents = run, folder, listeners, incidents
        self._kept: Snapshot | None = None
        self._random: dict[str, Any] = {}
        self._step, self._unheard = run.step, list(run.unheard)

    def keep(self) -> None:
        """Remember the run as it stands, where a rollback may want it; called where everything is known to be sound."""
        if self.run.watch.on_nonfinite != "rollback":
            return
        self._kept, self._random = _snapshot(self.run), rng.capture()
        self._step, self._unheard = self.run.step, list(self.run.unheard)

    def is_sound(self, journal: Journal) -> bool:
        """Read what the device knows and answer steps whose gradient was not finite; False if the run went back.

        Raises:
            TrainingFailed: that is the answer.
        """
        journal.fetch()
        wrong = journal.take_nonfinite()
        if not wrong:
            self.run.rollbacks = 0
            return True
        watch = self.run.watch
        if self.run.guard is not None:  # recovery has answered them, and knows when it is enough
            for one in wrong:
                self._note(one, "skip", level=0)
            return True
        if watch.on_nonfinite == "raise":
            self._fail(wrong[0], gave_up=False)
        if watch.on_nonfinite == "skip":
            for one in wrong:
                if one.in_a_row > watch.max_consecutive:
                    self._fail(one, gave_up=True)
                self._note(one, "skip")
            return True
        self.run.rollbacks += 1
        if self.run.rollbacks > watch.max_consecutive:
            self._fail(wrong[0], gave_up=True)
        for one in wrong:
            self._note(one, "rollback")
        self._go_back()
        journal.forget(after=self._step)
        return False

    def _go_back(self) -> None:
        """Everything as it was, save the position in the data."""
        assert self._kept is not None
        self._kept.restore()
        rng.restore(self._random)
        self.run.step, self.run.unheard, self.run.nonfinite_in_a_row = self._step, list(self._unheard), 0

    def _note(self, one: NonFinite, action: str, **more: int) -> None:
        """All of it for the incidents; for those who watch what fits a line."""
        if self.incidents is not None:
            self.incidents.write(one.step, "nonfinite_gradient", action, **more, **one.incident())
        for listener in self.listeners:
            row = {"step": one.step, "kind": "nonfinite_gradient", "action": action}
            listener.on_incident(row | more | one.in_short())

    def _fail(self, one: NonFinite, gave_up: bool) -> None:
        path = None
        if self.incidents is not None:
            path = self.incidents.path
            self.incidents.write(one.step, "nonfinite_gradient", "raise", **one.incident())
        watch, said = self.run.watch, ""
        if gave_up:
            what = (
                "steps in a row were not finite" if watch.on_nonfinite == "skip" else "rollbacks in a row were needed"
            )
            said = f"more than health.max_consecutive={watch.max_consecutive} {what}; in the last "
        go_on = "" if latest(self.folder / "checkpoints") is None else " Continue from the last checkpoint."
        raise TrainingFailed(
            f"{said}{one.sentence()} {one.remedy(may_skip=not gave_up)}{go_on}", step=one.step, incidents=path
        )


def _snapshot(run: Run) -> Snapshot:
    """Everything that a step changes, save counters, the position in the data and random numbers."""
    parts = [part for part in (run.scheduler, run.ema, run.noise) if part is not None]
    return Snapshot(run.model, run.optimizer, *parts, *run.stateful().values())

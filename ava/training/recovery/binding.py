"""Where recovery meets the trainer: what it is given, and what else has to follow when a run went back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ava.checkpoint.checkpoint import steps
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.training.state import Run

if TYPE_CHECKING:
    from ava.training.recovery.recovery import Recovery


def recovery_of(
    run: Run, listeners: Sequence[Listener], incidents: IncidentLog | None, read: Callable[[], object]
) -> Recovery | None:  # fmt: skip
    """The recovery of a run that was built with one.

    Args:
        run: what is trained.
        listeners: who is told; empty on ranks other than 0.
        incidents: where it is written; None on ranks other than 0.
        read: has what steps reported read.
    """
    if run.guard is None or run.recovery is None:
        return None
    from ava.training.recovery.recovery import Recovery

    return Recovery(run, run.guard, run.recovery, listeners, incidents, read)


def forget_later(run: Run, listeners: Sequence[Listener], checkpoints: Path, step: int) -> bool:
    """Undo what was noted of later steps.

    Args:
        run: stands at `step` again.
        listeners: who is told.
        checkpoints: the folder.
        step: what the run went back to.

    Returns:
        Whether a checkpoint of a later step is there, from which a resumed run would go on: one of this is due.
    """
    if run.best is not None and run.best[1] > step:
        run.best = None
    run.evaluated = min(run.evaluated, step)
    for listener in listeners:
        listener.on_rollback(step)
    return run.world.decide(lambda: any(saved > step for saved in steps(checkpoints)))

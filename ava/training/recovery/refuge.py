"""The state that a run in trouble would go back to, as sections of a checkpoint: snapshots end with the process.

Only a checkpoint that is written while something is wrong holds one; a resumed run begins its snapshots with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ava.optimization.snapshot import Snapshot
from ava.training.recovery.fresh_start import go_to, on_host
from ava.training.recovery.snapshots import Kept, parts_of
from ava.training.state import Run


def sections_of(run: Run, kept: Kept) -> dict[str, Any] | None:
    """What a checkpoint of that snapshot would hold; the run is afterwards what it was.

    Args:
        run: the training; every rank takes part.
        kept: one of its snapshots.

    Returns:
        None on ranks other than 0.
    """
    with _back_again(run):
        kept.restore()
        recovery, run.recovery = run.recovery, None
        try:
            sections: dict[str, Any] | None = on_host(run.state())
        finally:
            run.recovery = recovery
    return sections


@contextmanager
def at_refuge(run: Run, sections: dict[str, Any]) -> Iterator[None]:
    """Within it the run stands at the sections' state.

    Args:
        run: afterwards what it was.
        sections: as `sections_of` gave them.
    """
    with _back_again(run):
        go_to(run, sections)
        yield


@contextmanager
def _back_again(run: Run) -> Iterator[None]:
    current, in_a_row = Snapshot(*parts_of(run), gradients=False), run.nonfinite_in_a_row
    try:
        yield
    finally:
        current.restore()
        run.scheduler.reapply()
        run.nonfinite_in_a_row = in_a_row

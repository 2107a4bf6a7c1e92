"""How the objectives of a run pulled against each other, as a picture: conflicts.png in the run directory.

It is drawn from what the log has of each logged step (`conflicts.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ava.reporting import json_lines
from ava.reporting.conflicts import Row, is_of_conflicts, read_conflicts
from ava.reporting.listener import Listener


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean cosine of every pair, and cosines and weights over the steps.

    Args:
        rows: of a log, those of `is_of_conflicts`; at least one.
        path: of the picture, a PNG; its folder exists.

    Raises:
        OSError: the disk refused.
    """
    from ava.reporting.conflict_figure import write

    write(read_conflicts(rows), path)


class ConflictPlot(Listener):
    """Draws conflicts.png once the run is over, if there were several objectives.

    Args:
        run_dir: the run's directory; of a resumed run its metrics.jsonl holds the steps before.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._rows: list[Row] = []

    def on_start(self, info: dict[str, Any]) -> None:
        """Take up what a resumed run has logged before."""
        first_step = info.get("first_step", 1)
        if first_step > 1:
            self._take(row for row in json_lines.read(self._run_dir / "metrics.jsonl") if row["step"] < first_step)

    def on_log(self, row: dict[str, float]) -> None:
        """Keep what the row says of conflicts."""
        self._take([row])

    def on_rollback(self, step: int) -> None:
        """Drop the rows of steps that will be taken again."""
        self._rows = [row for row in self._rows if row["step"] <= step]

    def close(self) -> None:
        """Draw."""
        if self._rows:
            draw(self._rows, self._run_dir / "conflicts.png")

    def _take(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if is_of_conflicts(row):
                self._rows.append({key: row[key] for key in row if key == "step" or is_of_conflicts({key: 0.0})})

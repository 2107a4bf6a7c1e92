"""metrics.jsonl: the numbers of a run, one line per logged step and one per evaluation.

    {"step": 20, "time": 1.52, "loss": 0.41, "lr": 0.001, "grad_norm": 0.9, "throughput": 5120.0, "memory": 312000000}
    {"step": 20, "eval/loss": 0.38, "eval/accuracy": 0.91}

Values that are not finite are the texts "nan", "inf" and "-inf"; `read` gives them back as floats. A resumed run first
drops what came after its checkpoint, so that the file goes on without gaps or repeats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from ava.checkpoint import atomic
from ava.reporting import json_lines
from ava.reporting.listener import Listener


class MetricsLog(Listener):
    """The log of one run.

    Args:
        path: the run's metrics.jsonl; made with the first row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: json_lines.JsonLines | None = None

    def write(self, row: dict[str, float]) -> None:
        """Append one row, with its `step` first."""
        if self._lines is None:
            self._lines = json_lines.JsonLines(self.path)
        self._lines.write({"step": row["step"], **row})

    def read(self) -> list[dict[str, float]]:
        """Every row, in order.

        Raises:
            InputError: a line is damaged. The last may be torn; it is skipped.
        """
        return json_lines.read(self.path)

    def truncate_after(self, step: int) -> int:
        """Drop every row of a later step, and a torn last line. The file changes in one step or not at all.

        Args:
            step: the last step whose rows stay.

        Returns:
            The number of rows that stay.

        Raises:
            InputError: a line is damaged.
        """
        self.close()
        if not self.path.exists():
            return 0
        kept = 0

        def past() -> Iterator[bytes]:
            nonlocal kept
            for line, row in json_lines.lines(self.path):
                if row.get("step", math.inf) <= step:
                    kept += 1
                    yield line

        atomic.write_lines(self.path, past())
        return kept

    def on_log(self, row: dict[str, float]) -> None:
        """Append the row."""
        self.write(row)

    def on_eval(self, row: dict[str, float]) -> None:
        """Append the row."""
        self.write(row)

    def on_rollback(self, step: int) -> None:
        """Drop the rows of steps that will be taken again."""
        self.truncate_after(step)

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Force the file to disk: whoever resumes from the checkpoint needs the rows before it."""
        if self._lines is not None:
            self._lines.force_to_disk()

    def close(self) -> None:
        """Close the file; another row opens it again."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None

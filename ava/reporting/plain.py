"""Progress as plain lines, for files, pipes and logs: one line per logged step, evaluation and ending."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from ava.reporting import layout
from ava.reporting.listener import Listener


class PlainProgress(Listener):
    """Writes one line per event; no line is broken, whatever its length.

    Args:
        console: where to write.
        clock: seconds since some moment; the time left is computed from it.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._unit, self._total = "samples", ""
        self._pace = layout.Pace(1, None, clock)

    def on_start(self, info: dict[str, Any]) -> None:
        """Say what trains, and where its directory is."""
        total = info.get("total_steps")
        self._unit, self._total = info.get("unit", "samples"), f"/{total}" if total else ""
        self._pace = layout.Pace(info.get("first_step", 1), total, self._clock)
        self._line(f"run directory {info['run_dir']}")
        for text in (layout.headline(info), *layout.remarks(info)):
            self._line(text)

    def on_log(self, row: dict[str, float]) -> None:
        """Write the row and the time left."""
        step = int(row["step"])
        fields = [*layout.progress_fields(row, self._unit), ("left", self._pace.left(step))]
        self._line(f"step {step}{self._total}" + _joined(fields))

    def on_eval(self, row: dict[str, float]) -> None:
        """Write the row."""
        self._line(f"eval {int(row['step'])}{self._total}" + _joined(layout.evaluation_fields(row)))

    def on_incident(self, row: dict[str, Any]) -> None:
        """Write what was seen and done; advice is a sentence."""
        if row["kind"] == "advice":
            self._line(f"advice  step {int(row['step'])}: {row['text']}")
            return
        self._line(f"note {int(row['step'])}{self._total}" + _joined(layout.incident_fields(row)))

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write how it ended, beside the baselines."""
        self._line(layout.closing_line(summary))
        table = layout.result_table(summary)
        if table is not None:
            self._console.print(table)

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def _joined(fields: list[tuple[str, str]]) -> str:
    return "".join(f"  {name} {text}" for name, text in fields)

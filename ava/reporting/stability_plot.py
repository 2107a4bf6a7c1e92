"""How stable a run was, as a picture: stability.png in the run directory.

It is drawn from the log and the incidents, where something speaks for it: a recovery is on, the optimizer tells of
hindrance, or there was an incident. A long run draws it anew now and then, so that one can look while it trains.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ava.reporting.listener import Listener
from ava.reporting.tail import Tail
from ava.reporting.thinning import Thinned, ThinnedIncidents

EVERY, SHARE = 60.0, 0.01
"""Seconds between two drawings at least, and the share of the time that drawing may take before the end."""


class StabilityPlot(Listener):
    """Draws stability.png.

    Args:
        run_dir: the run's directory; of a resumed run it holds what came before.
        always: draw it whether or not anything happened.
        clip_norm: the norm to which gradients are clipped, where it is fixed.
        clock: seconds since some moment.
    """

    def __init__(
        self, run_dir: Path, always: bool, clip_norm: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.picture = run_dir / "stability.png"
        self._run_dir, self._always, self._clip_norm, self._clock = run_dir, always, clip_norm, clock
        self._rows, self._incidents = Thinned(), ThinnedIncidents()
        self._next = clock() + EVERY

    def on_start(self, info: dict[str, Any]) -> None:
        """Take up what a resumed run had before; what it did after its checkpoint is no longer a part of it."""
        first_step = info.get("first_step", 1)
        if first_step > 1:
            for row in Tail(self._run_dir / "metrics.jsonl").new():
                if row["step"] < first_step and "loss" in row:
                    self._rows.add(row)
            for row in Tail(self._run_dir / "incidents.jsonl").new():
                if row["step"] < first_step:
                    self._incidents.add(row)

    def on_log(self, row: dict[str, float]) -> None:
        """Keep the row; draw, if it is time to."""
        self._rows.add(row)
        if self._clock() >= self._next:
            began = self._clock()
            self._draw()
            taken = self._clock() - began
            self._next = self._clock() + max(EVERY, taken / SHARE)

    def on_incident(self, row: dict[str, Any]) -> None:
        """Keep the incident."""
        self._incidents.add(row)

    def on_rollback(self, step: int) -> None:
        """What was told of later steps is drawn as taken back."""
        self._rows.go_back(step)

    def close(self) -> None:
        """Draw: also of a run that failed, where the picture is wanted most."""
        self._draw()

    def _draw(self) -> None:
        rows, incidents = self._rows.rows, self._incidents.rows
        is_wanted = self._always or incidents or any("hindrance" in row for row in rows)
        if is_wanted and (rows or incidents):
            from ava.reporting.stability_figure import draw  # matplotlib takes its time

            draw(rows, incidents, self.picture, self._clip_norm)

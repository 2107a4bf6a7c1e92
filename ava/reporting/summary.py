"""summary.json: what a run came to.

    {
      "eval/accuracy": 0.987,  "loss": 0.02,  ...            the last value of every metric, under its name
      "best": {"eval/accuracy": {"value": 0.988, "step": 640}, ...},
      "steps": 700, "seconds": 6.1, "throughput": ..., "peak_memory": ..., "parameters": ..., "baselines": [...],
      "versions": {"torch": ...}, "git": "<commit>[-dirty]" or null
    }

`best` is of the losses and of all that evaluations report; of a learning rate or a norm no value is best.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ava.checkpoint import atomic
from ava.reporting.environment import git_revision, versions
from ava.reporting.json_lines import to_json
from ava.reporting.listener import Listener

Mode = Literal["min", "max"]
_SMALL_IS_GOOD = ("loss", "error", "perplexity", "bits", "nll", "distance")


def mode_of(metric: str) -> Mode:
    """Whether small or large values of a metric are good, judged by its name."""
    return "min" if any(word in metric for word in _SMALL_IS_GOOD) else "max"


class Summary(Listener):
    """Follows the last and the best of every metric.

    A resumed run first shows it the rows of before: `for row in metrics.read(): summary.observe(row)`.

    Args:
        path: the run's summary.json, written at the end.
        modes: metric -> "min" or "max", where the name alone does not say it: the task's monitor.
    """

    def __init__(self, path: Path, modes: Mapping[str, Mode] | None = None) -> None:
        self.path = path
        self._modes = dict(modes or {})
        self._last: dict[str, float] = {}
        self._best: dict[str, list[dict[str, float]]] = {}

    def observe(self, row: dict[str, float]) -> None:
        """Take in a row of a log or an evaluation."""
        for name, value in row.items():
            if name == "step":
                continue
            self._last[name] = value
            if (name == "loss" or name.startswith(("eval/", "loss/"))) and self._is_better(name, value):
                self._best.setdefault(name, []).append({"value": value, "step": row["step"]})

    def complete(self, facts: dict[str, Any], device: str = "cpu") -> dict[str, Any]:
        """The summary of the run so far.

        Args:
            facts: what only the training knows: `steps`, `seconds`, `throughput`, `peak_memory`, `parameters`,
                `baselines` (a list of {"name", "metric", "value"}) ...; they win over a metric of the same name.
            device: where the run computes.

        Returns:
            What summary.json is to hold; hand it to every listener's `on_end`.
        """
        found = {"versions": versions(device), "git": git_revision()}
        return {**self._last, "best": {name: past[-1] for name, past in self._best.items()}, **facts, **found}

    def on_log(self, row: dict[str, float]) -> None:
        """Take in the row."""
        self.observe(row)

    def on_eval(self, row: dict[str, float]) -> None:
        """Take in the row."""
        self.observe(row)

    def on_rollback(self, step: int) -> None:
        """What was best at a later step was undone; what was before it is best again."""
        kept = {name: [one for one in past if one["step"] <= step] for name, past in self._best.items()}
        self._best = {name: past for name, past in kept.items() if past}

    def on_end(self, summary: dict[str, Any]) -> None:
        """Write summary.json, in one step."""
        atomic.write_text(self.path, json.dumps(to_json(summary), indent=1, allow_nan=False) + "\n")

    def _is_better(self, name: str, value: float) -> bool:
        if math.isnan(value):
            return False
        if name not in self._best:
            return True
        best = self._best[name][-1]["value"]
        return value < best if self._modes.get(name, mode_of(name)) == "min" else value > best

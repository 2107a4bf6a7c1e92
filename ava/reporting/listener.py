"""Those who watch a run: progress displays, logs, trackers.

A listener only reads. It is called every `log_every` steps with numbers that have already left the device, never
inside a step, and nothing it does can change the training. Every method does nothing unless it is overridden:

    class Alarm(Listener):
        def on_eval(self, row: dict[str, float]) -> None:
            if row["eval/loss"] > 3:
                ring()
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Listener:
    """What a run tells those who watch it, in this order; rows and summaries are plain numbers and text."""

    def on_start(self, info: dict[str, Any]) -> None:
        """Training begins.

        Args:
            info: `run_dir`; `first_step`, the step that comes first (1, or later after a resume); `total_steps`;
                `parameters`, their number; `unit`, what `throughput` counts each second ("samples"); and the names
                of the parts: `task`, `model`, `optimizer`, `scheduler`, `device`; `ranks`; `data`, what it is, and
                `notices`, a list of sentences that a user should read first. Only `run_dir` must be there.
        """

    def on_layers(self, step: int, norms: dict[str, float]) -> None:
        """Before `on_log`: the norm of each parameter's gradient in that step, by the parameter's name."""

    def on_log(self, row: dict[str, float]) -> None:
        """Every `log_every` steps: `step`, `time`, `loss`, `lr`, `grad_norm`, `throughput`, `memory`, and others."""

    def on_detail(self, row: dict[str, Any]) -> None:
        """Every `health.detail_every` steps: `step` and statistics by layer, as a line of health.jsonl."""

    def on_eval(self, row: dict[str, float]) -> None:
        """After an evaluation: `step`, and metrics whose names begin with `eval/`."""

    def on_incident(self, row: dict[str, Any]) -> None:
        """Something was seen and answered: `step`, `kind`, `action` and numbers, as a line of incidents.jsonl."""

    def on_rollback(self, step: int) -> None:
        """The run went back to `step`: what was told of later steps is undone, and those come again."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint of `step` is complete at `path`."""

    def on_end(self, summary: dict[str, Any]) -> None:
        """Training ended as planned, was stopped early, or was interrupted; `summary` is what summary.json holds."""

    def close(self) -> None:
        """The run is over, by whatever way, also by an error: release files and the terminal. Called once, last."""

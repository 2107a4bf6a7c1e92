"""Gradients, layer by layer: what every `health.detail_every` steps found, as a file and as a picture.

    {"step": 100, "noise_scale": 812.0, "layers": {"head.weight": {"grad_norm": 0.1, "weight_norm": 3.0,
     "update_ratio": 0.002, "zero_grads": 0.0}}, "activations": {"blocks.0.2": {"mean": 0.2, "std": 0.5, "max": 4.1,
     "dead": 0.03}}}

`health.jsonl` holds such a line for each of these steps; `gradient_flow.png` is drawn from it as the run ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ava.reporting.listener import Listener
from ava.reporting.metrics import MetricsLog


class GradientFlow(Listener):
    """Keeps health.jsonl, and draws it at the end.

    Args:
        run_dir: the run's directory.
    """

    def __init__(self, run_dir: Path) -> None:
        self.log = MetricsLog(run_dir / "health.jsonl")
        self.picture = run_dir / "gradient_flow.png"

    def on_detail(self, row: dict[str, Any]) -> None:
        """Append the row."""
        self.log.write(row)

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Force the file to disk, as of `MetricsLog`."""
        self.log.on_checkpoint(step, path)

    def on_rollback(self, step: int) -> None:
        """Drop the rows of steps that will be taken again."""
        self.log.on_rollback(step)

    def truncate_after(self, step: int) -> int:
        """Drop what came after `step`; see `MetricsLog.truncate_after`."""
        return self.log.truncate_after(step)

    def close(self) -> None:
        """Close the file and draw it: also of a run that failed, where the picture is wanted most."""
        self.log.close()
        if rows := self.log.read():
            from ava.reporting.gradient_flow_figure import draw  # matplotlib takes its time

            draw(rows, self.picture)

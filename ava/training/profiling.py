"""A PyTorch profiler trace of a few early steps, in the run directory."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule


class Profiler:
    """Records `active` steps after `wait` unrecorded ones and one warmup step; fewer where the run is shorter.

    Args:
        folder: where `trace.json` (for chrome://tracing or Perfetto) and `operators.txt` go.
        total_steps: steps that the run will take.
    """

    def __init__(self, folder: Path, total_steps: int, wait: int = 5, active: int = 5) -> None:
        self.folder = folder
        active = min(active, max(1, total_steps - 1))
        wait = max(0, min(wait, total_steps - active - 1))
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        self.profile = profile(
            activities=activities,
            schedule=schedule(wait=wait, warmup=1 if total_steps > 1 else 0, active=active, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )

    def start(self) -> None:
        """Begin to watch."""
        self.profile.start()

    def step(self) -> None:
        """One training step is over."""
        self.profile.step()

    def stop(self) -> None:
        """Write what was recorded."""
        self.profile.stop()

    def _write(self, recorded: profile) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(self.folder / "trace.json"))
        table = recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=40)
        (self.folder / "operators.txt").write_text(table, encoding="utf-8")

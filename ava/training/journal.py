"""What steps reported and nobody has read yet; reading waits for the device once, whatever the number of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ava.optimization.learning_rate.change import Change
from ava.reporting.environment import peak_memory
from ava.training.state import Run
from ava.training.step import StepReport


@dataclass(frozen=True)
class NonFinite:
    """The first step since the last reading whose gradient was not finite; the optimizer skipped it."""

    step: int
    grad_norm: float
    losses: dict[str, float]


class Journal:
    """Collects reports; `read` turns them into a line of the log.

    Args:
        run: whose steps these are; its ranks read together.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.reports: list[StepReport] = []
        self._known: list[tuple[StepReport, float, dict[str, float]]] = []
        self._read_at = 0.0

    def add(self, report: StepReport) -> None:
        """Keep a report until the next reading."""
        self.reports.append(report)

    @property
    def is_empty(self) -> bool:
        """Whether every report has been read."""
        return not self.reports and not self._known

    def fetch(self) -> None:
        """Bring what the device knows to the host; the next line will tell it. The schedule learns of skipped steps."""
        if not self.reports:
            return
        reports, self.reports = self.reports, []
        rows = list(zip(reports, *self._to_host(reports), strict=True))
        self._known += rows
        self.run.scheduler.settle()
        if self.run.scheduler.metric == "loss":
            # What a warmup makes of the loss says nothing about the rate after it.
            self.run.unheard += [sum(losses.values()) for report, _, losses in rows if report.phase != "warmup"]

    def read(self, seconds: float) -> tuple[dict[str, float], NonFinite | None]:
        """The last step's line, with the throughput since the last reading, and the first step that went wrong.

        Args:
            seconds: time spent training so far, in seconds.

        Returns:
            (`step`, `time`, `loss`, `loss/<objective>` where there are several, `lr`, `grad_norm`, `throughput` in
            samples per second, `memory` in bytes; what went wrong, if anything did).
        """
        self.fetch()
        known, self._known = self._known, []
        elapsed, self._read_at = max(seconds - self._read_at, 1e-9), seconds
        last, norm, losses = known[-1]
        row = {"step": last.step, "time": seconds} | _loss_columns(losses)
        # An optimizer that chooses its own rate has none to tell.
        row |= ({} if last.lr is None else {"lr": float(last.lr)}) | {"grad_norm": norm}
        row |= {
            "throughput": sum(report.num_samples for report, _, _ in known) / elapsed,
            "memory": peak_memory(self.run.world.device),
        }
        for report, norm, losses in known:
            if not math.isfinite(norm):
                return row, NonFinite(report.step, norm, losses)
        return row, None

    def restart_clock(self, seconds: float) -> None:
        """Throughput counts from here."""
        self._read_at = seconds

    def _to_host(self, reports: list[StepReport]) -> tuple[list[float], list[dict[str, float]]]:
        """One transfer: norms are equal on all ranks, losses are each rank's part."""
        names = list(reports[0].losses)
        sums = torch.stack([report.losses[name].float() for report in reports for name in names])
        parts = sums * torch.tensor([report.weight for report in reports for _ in names]).to(sums.device)
        norms = torch.stack([report.grad_norm.float() for report in reports])
        values = torch.cat([norms, self.run.world.sum_(parts)]).tolist()
        flat = values[len(reports) :]
        rows = [dict(zip(names, flat[i : i + len(names)], strict=True)) for i in range(0, len(flat), len(names))]
        return values[: len(reports)], rows


def tell_schedule(run: Run) -> list[Change]:
    """Tell a schedule that losses drive what the steps since the last time lost; what it changed for that.

    Only at steps that are due whether or not the run was interrupted, so that a resumed run decides as it would have
    done.
    """
    losses, run.unheard = run.unheard, []
    return [change for loss in losses if (change := run.scheduler.observe(loss)) is not None]


def _loss_columns(losses: dict[str, float]) -> dict[str, float]:
    """The total, and each objective where there are several."""
    columns = {"loss": sum(losses.values())}
    return columns if len(losses) == 1 else columns | {f"loss/{name}": value for name, value in losses.items()}

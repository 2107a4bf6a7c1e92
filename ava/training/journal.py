"""What steps reported and nobody has read yet; reading waits for the device once, whatever the number of steps."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch

from ava.optimization.learning_rate.change import Change
from ava.optimization.precision.loss_scale import Reading
from ava.reporting.environment import peak_memory
from ava.training import columns
from ava.training.aside import Aside
from ava.training.health import NonFinite, nonfinite_layers
from ava.training.movement import Movement
from ava.training.state import Run
from ava.training.step import StepReport
from ava.training.usage import Usage

STATISTICS = ("mean", "std", "max", "min", "sparsity")
"""Of the gradients' elements, in the log as `grad/<name>`."""


@dataclass(frozen=True)
class _Known:
    """A step that has been read.

    Attributes:
        report: what it reported.
        norm: of its gradient.
        losses: objective -> mean loss over all ranks.
        is_finite: whether its gradient was.
        statistics: of the gradients' elements, where they were measured.
        scaling: of the loss scale, where there is one: `scale`, `at_floor`, `overflows`, `underflow`.
        verdict: what the detection of hindrance said, where there is one.
    """

    report: StepReport
    norm: float
    losses: dict[str, float]
    is_finite: bool
    statistics: dict[str, float]
    scaling: dict[str, float]
    verdict: dict[str, float]

    @property
    def loss(self) -> float:
        """Of all objectives together."""
        return sum(self.losses.values())

    @property
    def was_left_out(self) -> bool:
        """Whether the step changed nothing."""
        return not self.is_finite or self.verdict.get("skip", 0.0) > 0

    @property
    def is_overflow(self) -> bool:
        """Whether the gradient was only too large with the loss scale on it, which has been lowered."""
        finite_losses = all(math.isfinite(value) for value in self.losses.values())
        return bool(self.scaling) and not self.is_finite and not self.scaling["at_floor"] and finite_losses


class Journal:
    """Collects reports; `read` turns them into a line of the log.

    Args:
        run: whose steps these are; its ranks read together.
        is_watched: whether somebody wants to know of layers, momentum and how far the weights move.

    Attributes:
        usage: the clocks beside the training.
        layer_norms: parameter -> norm of its gradient, of the last line.
    """

    def __init__(self, run: Run, is_watched: bool = True) -> None:
        self.run, self._is_watched = run, is_watched
        self._aside = Aside()
        self.reports: list[StepReport] = []
        self._known: list[_Known] = []
        self._wrong: list[NonFinite] = []
        self._details: list[dict[str, Any]] = []
        self._read_at = 0.0
        self._losses: deque[float] = deque(maxlen=columns.LONGEST)
        self._movement = Movement(run.parameters)
        self._names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        self.usage = Usage(run.world.device)
        self.layer_norms: dict[str, float] = {}

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
        aside = self._look_aside(reports[-1]) if self._is_watched else Aside()
        known, numbers = self._to_host(reports, aside.unread())
        self._aside = aside.read(numbers)
        self._known += known
        self.run.scheduler.settle()
        for one in known:
            self._count(one)
            self._losses.append(one.loss)
            if one.report.detail is not None:
                self._details.append(one.report.detail.read(self.run.noise, self.run.world.sum_, self.run.world.max_))
        if self.run.scheduler.metric == "loss":
            # What a warmup makes of the loss says nothing about the rate after it, and a skipped step nothing at all.
            heard = [one for one in known if one.report.phase != "warmup" and one.is_finite]
            self.run.unheard += [sum(one.losses.values()) for one in heard]

    def take_nonfinite(self) -> list[NonFinite]:
        """The steps since the last time whose gradient was not finite, once they were fetched."""
        wrong, self._wrong = self._wrong, []
        return wrong

    def take_details(self) -> list[dict[str, Any]]:
        """What the steps since the last time found in each layer, once they were fetched: lines of health.jsonl."""
        details, self._details = self._details, []
        return details

    def forget(self, after: int) -> None:
        """Tell no line of what was fetched of later steps: the run went back to step `after`."""
        self._known = [one for one in self._known if one.report.step <= after]
        self._losses.clear()
        self._details = [row for row in self._details if row["step"] <= after]

    def read(self, seconds: float) -> dict[str, float]:
        """The last step's line, with the throughput since the last reading.

        Args:
            seconds: time spent training so far, in seconds.

        Returns:
            `step`, `time`, `loss`, `loss/<objective>` where there are several, `lr`, `grad_norm`, `grad/mean` and its
            likes where they were measured, `throughput` in samples per second, `memory` in bytes, and what
            `columns.py` and `usage.py` know of the steps since the last line.
        """
        self.fetch()
        known, self._known = self._known, []
        elapsed, self._read_at = max(seconds - self._read_at, 1e-9), seconds
        last = known[-1]
        row = {"step": last.report.step, "time": seconds} | _loss_columns(last.losses)
        # An optimizer that chooses its own rate has none to tell.
        row |= ({} if last.report.lr is None else {"lr": float(last.report.lr)}) | {"grad_norm": last.norm}
        row |= last.statistics | _precision_columns(last.scaling) | self._conflicts() | self._of_steps(known)
        if self.run.policy.float8 is not None:
            row |= self.run.policy.float8.columns()
        row |= {
            "throughput": sum(one.report.num_samples for one in known) / elapsed,
            "memory": peak_memory(self.run.world.device),
        }
        return row | self.usage.read(elapsed)

    def restart_clock(self, seconds: float) -> None:
        """Throughput counts from here."""
        self._read_at = seconds
        self.usage.restart()

    def _of_steps(self, known: list[_Known]) -> dict[str, float]:
        """What all the steps since the last line say, rather than the last of them."""
        losses = [one.loss for one in known]
        row = {"loss_first": losses[0]} if known[0].report.step == 1 else {}
        row |= columns.of_steps(losses, [one.norm for one in known], sum(one.was_left_out for one in known))
        row |= columns.loss_trend(self._losses, len(known)) | columns.of_verdicts([one.verdict for one in known])
        return row | (self._of_last(len(known)) if self._is_watched else {})

    def _look_aside(self, report: StepReport) -> Aside:
        return Aside(report.health, self._movement.since_last(), columns.moving(self.run))

    def _of_last(self, num_steps: int) -> dict[str, float]:
        """The last step's norms, layer by layer, its momentum and update; and how far a step moves the weights."""
        aside = self._aside
        self._movement.end_line()
        self.layer_norms = {self._names.get(id(p), "?"): norm for p, norm in aside.layer_norms}
        row = columns.momentum(self.run.optimizer, aside.numbers.get("momentum_factor", 1.0))
        length = aside.numbers.get("update_norm", math.nan)
        row |= {} if math.isnan(length) else {"update_norm": length}
        change, size = aside.moved
        return row if math.isnan(change) or size == 0 else row | {"weight_change": change / size / num_steps}

    def _count(self, one: _Known) -> None:
        """Note a step whose gradient was not finite, with all that tells where it came from.

        An overflow of the loss scale is none: it is how the scale finds its place.
        """
        if one.is_overflow:
            return
        self.run.nonfinite_in_a_row = 0 if one.is_finite else self.run.nonfinite_in_a_row + 1
        if one.is_finite:
            return
        report = one.report
        layers = nonfinite_layers(self.run.model, report.health)
        samples = self.run.loader.indices(report.start, report.num_samples).tolist()
        row = self.run.nonfinite_in_a_row
        self._wrong.append(NonFinite(report.step, one.norm, one.losses, layers, report.start, samples, row))

    def _to_host(self, reports: list[StepReport], aside: list[torch.Tensor]) -> tuple[list[_Known], list[float]]:
        """One transfer: what is measured of gradients is equal on all ranks, losses are each rank's part.

        Returns:
            The steps, and the numbers of `aside`.
        """
        names = list(reports[0].losses)
        sums = torch.stack([report.losses[name].float() for report in reports for name in names])
        parts = sums * torch.tensor([report.weight for report in reports for _ in names]).to(sums.device)
        seen = [part for report in reports for part in (report.health.norm, report.health.found_inf)]
        full = [report for report in reports if report.health.statistics is not None]
        seen += [getattr(report.health.statistics, name) for report in full for name in STATISTICS]
        seen += [part for report in reports if report.scaling is not None for part in _parts(report.scaling)]
        told = [{} if report.verdict is None else report.verdict.numbers() for report in reports]
        seen += [value for numbers in told for value in numbers.values() if isinstance(value, torch.Tensor)]
        wide = torch.float32 if sums.device.type == "mps" else torch.float64
        found = [torch.stack([part.to(sums.device, wide) for part in seen])]
        found += [part.detach().to(sums.device, wide).reshape(-1) for part in aside]
        values = iter(torch.cat([self.run.world.sum_(parts).to(wide), *found]).tolist())
        losses = [dict(zip(names, values, strict=False)) for _ in reports]
        norms = [(next(values), next(values)) for _ in reports]
        measured = {id(report): {f"grad/{name}": next(values) for name in STATISTICS} for report in full}
        scaling = [dict(zip(_SCALING, values, strict=False)) if report.scaling else {} for report in reports]
        verdicts = [
            {name: next(values) if isinstance(value, torch.Tensor) else value for name, value in numbers.items()}
            for numbers in told
        ]
        known = [
            _Known(report, norm, loss, found_inf == 0, measured.get(id(report), {}), scale, verdict)
            for report, loss, (norm, found_inf), scale, verdict in zip(
                reports, losses, norms, scaling, verdicts, strict=True
            )
        ]
        return known, list(values)

    def _conflicts(self) -> dict[str, float]:
        """How the objectives' gradients stand to each other, where surgery looks at them."""
        return {} if self.run.surgery is None else self.run.surgery.columns()


def tell_schedule(run: Run) -> list[Change]:
    """Tell a schedule that losses drive what the steps since the last time lost; what it changed for that.

    Only at steps that are due whether or not the run was interrupted, so that a resumed run decides as it would have
    done.
    """
    losses, run.unheard = run.unheard, []
    return [change for loss in losses if (change := run.scheduler.observe(loss)) is not None]


_SCALING = ("scale", "at_floor", "overflows", "underflow")


def _parts(reading: Reading) -> list[torch.Tensor]:
    """In the order of `_SCALING`; NaN for what was not looked at."""
    underflow = torch.full_like(reading.scale, math.nan) if reading.underflow is None else reading.underflow
    return [reading.scale, reading.at_floor, reading.overflows, underflow]


def _precision_columns(scaling: dict[str, float]) -> dict[str, float]:
    """The loss scale, the steps that overflowed so far, and the share of elements too small for float16."""
    if not scaling:
        return {}
    columns = {"precision/loss_scale": scaling["scale"], "precision/overflows": scaling["overflows"]}
    return columns if math.isnan(scaling["underflow"]) else columns | {"precision/underflow": scaling["underflow"]}


def _loss_columns(losses: dict[str, float]) -> dict[str, float]:
    """The total, and each objective where there are several."""
    columns = {"loss": sum(losses.values())}
    return columns if len(losses) == 1 else columns | {f"loss/{name}": value for name, value in losses.items()}

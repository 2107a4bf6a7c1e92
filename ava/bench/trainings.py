"""Trainings that are measured: what is trained, as `ava-train` composes, builds and steps it, and what it reached."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from ava.data.source import Split
from ava.errors import InputError
from ava.training.evaluation import evaluate
from ava.training.journal import Journal, tell_schedule
from ava.training.loop import Plan
from ava.training.state import Run
from ava.training.step import StepReport, training_step


@dataclass(frozen=True)
class Problem:
    """What is trained, and for how long.

    Attributes:
        overrides: the configuration, but for optimizer, schedule and length.
        steps: the length of the training.
        num_valid: validation samples that are looked at, spread evenly over all there are.
    """

    overrides: tuple[str, ...]
    steps: int
    num_valid: int = 1024

    @property
    def warmup(self) -> int:
        """Steps of linear rise of the rate."""
        return self.steps // 20

    def words(self, optimizer: str, schedule: Iterable[str], seed: int) -> list[str]:
        """The overrides of one training.

        Args:
            optimizer: a registered name; it has its defaults.
            schedule: overrides; {warmup} in them is the problem's.
            seed: of the start, the order of the samples and all noise.
        """
        fixed = [f"optimizer={optimizer}", f"seed={seed}", f"trainer.max_steps={self.steps}", "trainer.device=cpu"]
        return [*self.overrides, *fixed, *(word.format(warmup=self.warmup) for word in schedule)]


PROBLEMS = {
    "digits": Problem(("task=digits", "model=convnet", "trainer.batch_size=64"), 1000),
    "gpt": Problem(
        ("task=stdlib_lm", "data.context=64", "model.layers=2", "model.heads=2", "model.width=96",
         "trainer.batch_size=8"), 800,
    ),
}  # fmt: skip
"""Handwritten digits by 94,000 parameters, source text in bytes by 246,000."""


def take_steps(run: Run, plan: Plan) -> float:
    """Train to the plan's end, as the trainer does but without its files.

    Args:
        run: a step whose gradient is not finite changes nothing in it, and ends nothing.
        plan: its `log_every` says how often losses are read, and told to a schedule that they drive.

    Returns:
        The mean training loss over the last tenth of the steps, infinite where it is no number.

    Raises:
        InputError: evaluations drive the schedule, and here are none before the end.
    """
    if run.scheduler.metric == "eval":
        raise InputError("the schedule follows evaluations, which this measurement takes only after the last step.")
    journal = Journal(run)
    reports: list[StepReport] = []
    run.network.train()
    for window in run.loader.windows(run.position):
        reports.append(training_step(run, window))
        journal.add(reports[-1])
        if plan.log_every > 0 and run.step % plan.log_every == 0:
            journal.fetch()
            tell_schedule(run)
        if run.step == plan.total_steps:
            break
    last = reports[-max(1, plan.total_steps // 10) :]
    return finite(statistics.fmean(report.weight * float(sum(report.losses.values())) for report in last))


def validation_loss(run: Run, num_valid: int) -> float:
    """The mean loss over so many validation samples, infinite where it is no number."""
    data = dataclasses.replace(run.task.data, valid=Some(run.task.data.valid, num_valid))
    run.task = dataclasses.replace(run.task, data=data)  # type: ignore[type-var]
    return finite(evaluate(run)["eval/loss"])


def finite(loss: float) -> float:
    """Infinity in place of what is no number, so that it is larger than any limit."""
    return loss if math.isfinite(loss) else math.inf


def positive(text: str) -> int:
    """A whole number above 0, from the command line."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def not_negative(text: str) -> int:
    """A whole number from 0 on, from the command line."""
    if (number := int(text)) < 0:
        raise ValueError(text)
    return number


@dataclass(frozen=True)
class Some:
    """A part of a split: `limit` samples at most, in even distances."""

    split: Split
    limit: int

    def __len__(self) -> int:
        return min(self.limit, len(self.split))

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """The samples at these places of the part."""
        return self.split.fetch(indices * len(self.split) // len(self), epoch)

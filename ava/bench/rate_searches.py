"""One training with a way to its learning rate: a rate that is given, or the range test before it; and what it cost."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from ava.bench.trainings import Problem, take_steps, validation_loss
from ava.config.combinations import finder_config
from ava.config.parts import build_run
from ava.config.resume import prepare
from ava.config.schema import Config
from ava.config.search import take_up
from ava.distributed.world import join
from ava.optimization.learning_rate.finder.findings import Findings
from ava.training.range_test import search_lr
from ava.training.state import Run


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        label: what the tables call the problem.
        problem: what is trained.
        optimizer: with its defaults.
        schedule: overrides; {warmup} in them is the problem's.
        seed: of the start, the order of the samples and all noise.
        lr: the rate; None is the optimizer's default.
        finds: whether the range test of the section `lr_finder` comes first, and its suggestion replaces the rate.
    """

    label: str
    problem: Problem
    optimizer: str
    schedule: tuple[str, ...]
    seed: int
    lr: float | None = None
    finds: bool = False

    def words(self) -> list[str]:
        """The overrides, as `ava-train` takes them."""
        rate = [] if self.lr is None else [f"optimizer.lr={self.lr!r}"]
        finder = ["lr_finder.enabled=true"] if self.finds else []
        return [*self.problem.words(self.optimizer, self.schedule, self.seed), *rate, *finder]

    def compose(self) -> Config:
        """The checked configuration.

        Raises:
            InputError: something in it cannot be.
        """
        return prepare(self.words())[0]


@dataclass(frozen=True)
class Search:
    """What the range test said, and what it took.

    Attributes:
        lr: the suggestion that counts; None where there is none.
        suggestions: method -> suggestion.
        refusal: why there is none.
        stopped: how it ended: "covered", "diverged" or "not finite".
        steps: optimizer steps.
        cpu_s: processor time, in seconds.
    """

    lr: float | None
    suggestions: dict[str, float]
    refusal: str | None
    stopped: str
    steps: int
    cpu_s: float


@dataclass(frozen=True)
class Training:
    """What a training reached, and what it took.

    Attributes:
        schedule: its name.
        lr: the optimizer's rate; None where it was to be found and was not.
        steps: optimizer steps, without the search; 0 where there was no rate to train with.
        cpu_s: their processor time, in seconds.
        valid: the mean validation loss after the last step; infinite where it is no number, or nothing was trained.
        train: the mean training loss over the last tenth of the steps, likewise.
        search: what came first, if anything did.
    """

    schedule: str
    lr: float | None
    steps: int
    cpu_s: float
    valid: float
    train: float
    search: Search | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps, search included."""
        return self.steps + (self.search.steps if self.search else 0)

    @property
    def total_cpu_s(self) -> float:
        """Processor time in seconds, search included."""
        return self.cpu_s + (self.search.cpu_s if self.search else 0.0)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words; `from_dict` makes the same of them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> Training:
        """What `as_dict` gave.

        Raises:
            KeyError, TypeError: it is no such thing.
        """
        own = {name: said[name] for name in cls.__dataclass_fields__}
        return cls(**own | {"search": None if own["search"] is None else Search(**own["search"])})


def carry_out(job: Job, config: Config) -> Training:
    """Search where asked, and train; the time of building and of the evaluation does not count.

    Args:
        job: what to do.
        config: what it composes to.
    """
    with join(config.trainer.device) as world:
        run, plan = build_run(config, world)
        search = None
        if job.finds:
            findings, search = _search(config, run)
            if search.lr is None:
                return Training(config.scheduler.name, None, 0, 0.0, math.inf, math.inf, search)
            config, _ = take_up(config, findings)
            run, plan = build_run(config, world)
        began = time.process_time()
        train = take_steps(run, plan)
        cpu_s = time.process_time() - began
        valid = validation_loss(run, job.problem.num_valid)
    return Training(
        config.scheduler.name, config.optimizer.options["lr"], plan.total_steps, cpu_s, valid, train, search
    )


def _search(config: Config, run: Run) -> tuple[Findings, Search]:
    """The range test on the run's own start, as `ava-train` takes it before a training; the run is left as it was."""
    asked = finder_config(config.lr_finder)
    began = time.process_time()
    findings = search_lr(run, asked, config.lr_finder.seeds)
    cpu_s = time.process_time() - began
    search = Search(
        lr=None if findings.refusal else findings.chosen.lr,
        suggestions={name: one.lr for name, one in findings.suggestions.items()},
        refusal=None if findings.refusal is None else str(findings.refusal),
        stopped=findings.centre.stopped, cpu_s=cpu_s,
        steps=sum(len(curve.lr) for curve in findings.curves) + len(findings.probes) * asked.probe_steps,
    )  # fmt: skip
    return findings, search

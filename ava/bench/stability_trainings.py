"""Trainings that may go wrong: through the real loop, with or without a fault, and what became of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ava.bench.faults import Fault, inject
from ava.bench.trainings import Problem, Some, finite
from ava.config.parts import build_run
from ava.config.resume import prepare
from ava.config.schema import Config
from ava.distributed.world import World, join
from ava.errors import TrainingFailed
from ava.optimization import state_bytes
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.training.loop import Plan, Trainer
from ava.training.state import Run

BYTES = ("task=stdlib_lm", "data.context=64", "trainer.batch_size=8")
PROBLEMS = {
    "digits": Problem(("task=digits", "model=convnet", "trainer.batch_size=64"), 300),
    "gpt": Problem((*BYTES, "model.layers=2", "model.heads=2", "model.width=96"), 240),
    "digits_mlp": Problem(("task=digits", "model=mlp", "model.width=192", "trainer.batch_size=32"), 400),
    "gpt_narrow": Problem((*BYTES, "model.layers=3", "model.heads=2", "model.width=64"), 300),
}  # fmt: skip
"""What is trained; the last two with `--held-out`."""
BASELINES = {"digits": math.log(10), "gpt": 4.80 * math.log(2)}
"""Beginning of a problem's name -> the loss of what knows frequencies only, in nats: of ten classes, of a text's bytes.
A training that ends above has failed."""
SCHEDULE = ("scheduler=cosine", "scheduler.warmup_steps={warmup}")
_CLIP = ("clip=norm", "trainer.clip_norm=1.0")
_NEVER_ENDS = "health.max_consecutive=1000000"
GUARDS: dict[str, tuple[str, ...]] = {
    "none": ("clip=none", "health.on_nonfinite=raise"),
    "clip": (*_CLIP, "health.on_nonfinite=raise"),
    "clip_skip": (*_CLIP, "health.on_nonfinite=skip", _NEVER_ENDS),
    "skip": (*_CLIP, "recovery=skip"),
    "ladder": (*_CLIP, "recovery=ladder"),
}
"""Name -> overrides. The first two end with the first gradient that is not finite, as a training with torch alone does
whose weights are NaN from there on."""


@dataclass(frozen=True)
class Scenario:
    """One training.

    Attributes:
        problem: a key of `PROBLEMS`.
        optimizer: a registered name, and overrides of its options: "agmohd state=factored".
        lr: the rate at its peak.
        guard: a key of `GUARDS`.
        seed: of the start, the order of the samples and all noise.
        fault: what befalls it.
        length: its steps, in units of the problem's.
        precision: in which it computes.
        ranks: processes.
    """

    problem: str
    optimizer: str
    lr: float
    guard: str
    seed: int
    fault: Fault | None = None
    length: float = 1.0
    precision: str = "fp32"
    ranks: int = 1

    @property
    def clean(self) -> Scenario:
        """The same without its fault."""
        return dataclasses.replace(self, fault=None)

    @property
    def baseline(self) -> float:
        """The validation loss above which it has failed, in nats."""
        return next(loss for name, loss in BASELINES.items() if self.problem.startswith(name))

    def words(self) -> list[str]:
        """The overrides, as `ava-train` takes them."""
        problem = PROBLEMS[self.problem]
        steps = max(20, round(problem.steps * self.length))
        problem = dataclasses.replace(problem, steps=steps)
        name, *options = self.optimizer.split()
        rest = [f"optimizer.{option}" for option in options]
        guard = (f"optimizer.lr={self.lr!r}", f"precision={self.precision}", *GUARDS[self.guard])
        return [*problem.words(name, SCHEDULE, self.seed), *rest, *guard, "logger=[]"]

    def compose(self) -> Config:
        """The checked configuration.

        Raises:
            InputError: something in it cannot be.
        """
        return prepare(self.words())[0]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Scenario:
        """What `as_dict` gave."""
        return cls(**{**said, "fault": None if said["fault"] is None else Fault(**said["fault"])})


@dataclass(frozen=True)
class Outcome:
    """What became of a training.

    Attributes:
        valid: mean validation loss after the last step, in nats; infinite where it is no number, or never came so far.
        failure: why it ended early; None where it did not.
        attempts: steps that were tried.
        happened: attempts in which the fault acted.
        incidents: "kind/action" -> how many.
        losses: step and mean training loss on this process, one an attempt.
        state: bytes of optimizer state per parameter.
        cpu_s: processor time, in seconds.
    """

    valid: float
    failure: str | None = None
    attempts: int = 0
    happened: int = 0
    incidents: dict[str, int] = field(default_factory=dict)
    losses: list[tuple[int, float]] = field(default_factory=list)
    state: float = 0.0
    cpu_s: float = 0.0

    def actions(self, *names: str) -> int:
        """How often one of these actions was taken."""
        return sum(count for key, count in self.incidents.items() if key.partition("/")[2] in names)

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Outcome:
        """What `dataclasses.asdict` gave.

        Raises:
            KeyError, TypeError: it is no such thing.
        """
        losses = [(int(step), float(loss)) for step, loss in said["losses"]]
        return cls(**{**{name: said[name] for name in cls.__dataclass_fields__}, "losses": losses})


def carry_out(scenario: Scenario) -> Outcome:
    """Train, on as many processes as it wants.

    Raises:
        InputError: its configuration cannot be.
        RuntimeError: the processes of several ranks failed otherwise than in training.
    """
    return train(scenario) if scenario.ranks == 1 else _launch(scenario)


def train(scenario: Scenario) -> Outcome:
    """Train as this process, alone or as one of a launch."""
    config = scenario.compose()
    with join("cpu") as world, tempfile.TemporaryDirectory() as folder:
        run, plan = build_run(config, world)
        _look_at_less(run, PROBLEMS[scenario.problem].num_valid)
        plan = dataclasses.replace(plan, eval_every=0, checkpoint_every=0, keep_best=False)
        return _observed(run, plan, Path(folder), world, scenario.fault)


def _observed(run: Run, plan: Plan, folder: Path, world: World, fault: Fault | None) -> Outcome:
    seen, losses = _Seen(), _Losses(run)
    incidents = IncidentLog(folder / "incidents.jsonl") if world.is_main else None
    trainer = Trainer(run, plan, folder, [seen] if world.is_main else [], incidents)
    failure, began = None, time.process_time()
    with inject(run, *([] if fault is None else [fault])) as injected:
        try:
            trainer.train()
        except TrainingFailed as error:
            failure = " ".join(str(error).split())[:200]
    return Outcome(
        math.inf if failure else finite(seen.valid), failure, injected.attempt - 1, injected.happened,
        dict(seen.incidents), losses.read(), state_bytes(run.optimizer), time.process_time() - began,
    )  # fmt: skip


def _look_at_less(run: Run, num_valid: int) -> None:
    data = dataclasses.replace(run.task.data, valid=Some(run.task.data.valid, num_valid))
    run.task = dataclasses.replace(run.task, data=data)  # type: ignore[type-var]


class _Seen(Listener):
    """The last evaluation, and incidents."""

    def __init__(self) -> None:
        self.valid, self.incidents = math.inf, Counter[str]()

    def on_eval(self, row: dict[str, float]) -> None:
        self.valid = row["eval/loss"]

    def on_incident(self, row: dict[str, Any]) -> None:
        self.incidents[f"{row['kind']}/{row['action']}"] += 1


class _Losses:
    """Every attempt's training loss, also of those that were undone."""

    def __init__(self, run: Run) -> None:
        self._rows: list[tuple[int, Tensor, int]] = []
        self._task, losses = run.task, run.task.losses
        run.task = copy.copy(run.task)

        def noted(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
            found = losses(model, batch)
            if torch.is_grad_enabled():
                self._rows.append((run.step + 1, sum(found.values(), torch.zeros(())).detach(), self._count(batch)))
            return found

        object.__setattr__(run.task, "losses", noted)

    def _count(self, batch: Mapping[str, Tensor]) -> int:
        return max(1, self._task.count(batch))

    def read(self) -> list[tuple[int, float]]:
        return [(step, round(float(loss) / count, 4)) for step, loss, count in self._rows]


def _launch(scenario: Scenario) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        said, found = Path(folder) / "scenario.json", Path(folder) / "outcome.json"
        said.write_text(json.dumps(scenario.as_dict()), encoding="utf-8")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={scenario.ranks}"]
        done = subprocess.run(
            [*command, "-m", "ava.bench.stability_ranks", str(said), str(found)],
            capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if not found.exists():
            raise RuntimeError(f"{scenario.ranks} ranks failed: {done.stderr[-2000:]}")
        return Outcome.from_dict(json.loads(found.read_text(encoding="utf-8")))

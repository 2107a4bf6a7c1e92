"""What sound trainings look like to a detector: gradient norm, update norm and loss of every step, recorded once.

Each training is composed and built as `ava-train` does it and stepped without any guard. Optimizers run at rates around
a good one, the highest three times too high: noise, falls and rises of all kinds, and nothing to be repaired.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ava.bench.trainings import PROBLEMS, Problem
from ava.config.parts import build_run
from ava.config.resume import prepare
from ava.distributed.world import join
from ava.training.state import Run
from ava.training.step import training_step

TASKS = {
    "convnet": Problem(PROBLEMS["digits"].overrides, 1000),
    "mlp": Problem(("task=digits", "model=mlp", "trainer.batch_size=32"), 1000),
    "gpt": Problem(PROBLEMS["gpt"].overrides, 800),
}
RATES = {
    ("convnet", "sgd"): 0.05, ("convnet", "adamw"): 2e-3, ("convnet", "lion"): 3e-4,
    ("mlp", "sgd"): 0.1, ("mlp", "adamw"): 2e-3, ("mlp", "lion"): 3e-4,
    ("gpt", "sgd"): 0.3, ("gpt", "adamw"): 3e-3, ("gpt", "lion"): 3e-4,
}  # fmt: skip
"""A good rate of each optimizer on each task."""
OFF = (0.3, 1.0, 3.0)
"""Times which it is trained: lower, good, too high."""


@dataclass
class Recording:
    """One training as a detector saw it.

    Attributes:
        task, optimizer, factor, seed: what was trained; the rate is `factor` times a good one.
        gradient: norm of all gradients before clipping, a value a step.
        update: norm of what the parameters changed by.
        loss: mean loss of the step.
        lr: the rate of the step.
        phase: where it lay in the schedule.
        samples: the step's batch size; an epoch's last batch is smaller.
    """

    task: str
    optimizer: str
    factor: float
    seed: int
    gradient: list[float]
    update: list[float]
    loss: list[float]
    lr: list[float]
    phase: list[str]
    samples: list[int]

    @property
    def is_sound(self) -> bool:
        """Whether it ended lower than it began: a training that diverged by itself is not clean."""
        last = self.loss[-max(1, len(self.loss) // 10) :]
        return all(map(math.isfinite, self.loss)) and sum(last) / len(last) < self.loss[0]

    def pace(self, step: int) -> float:
        """The update's norm for a rate of 1; NaN where the rate is 0."""
        return self.update[step] / self.lr[step] if self.lr[step] > 0 else math.nan

    def noise(self, around: int = 10) -> list[float]:
        """Deviation of the log loss from a straight line through the steps around each."""
        logs, found = [math.log(max(loss, 1e-30)) for loss in self.loss], []
        for step in range(len(logs)):
            near = logs[max(0, step - around) : step + around + 1]
            places = range(len(near))
            slope, start = statistics.linear_regression(places, near)
            left = sum((value - start - slope * place) ** 2 for place, value in zip(places, near, strict=True))
            found.append(math.sqrt(left / (len(near) - 2)))
        return found


Key = tuple[str, str, float, int]


def wanted(tasks: Sequence[str], seeds: Sequence[int], factors: Sequence[float] = OFF) -> list[Key]:
    """The trainings of these tasks and seeds: task, optimizer, factor, seed."""
    return [(task, name, f, seed) for seed in seeds for (task, name) in RATES if task in tasks for f in factors]


def recorded(keys: Sequence[Key], steps: int | None, cache: Path | None) -> Iterator[Recording]:
    """Each training, from the file where it is there; else it is trained now and added to the file.

    Args:
        keys: which.
        steps: length of each; None for its task's own.
        cache: a file of one recording a line; None for none.
    """
    known: dict[tuple[object, ...], Recording] = {}
    if cache is not None and cache.exists():
        for line in cache.read_text(encoding="utf-8").splitlines():
            found = Recording(**json.loads(line))
            known[found.task, found.optimizer, found.factor, found.seed, len(found.loss)] = found
    for key in keys:
        length = steps or TASKS[key[0]].steps
        if (*key, length) not in known:
            found = known[(*key, length)] = record(key, length)
            if cache is not None:
                with cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(found)) + "\n")
        yield known[(*key, length)]


def record(key: Key, steps: int) -> Recording:
    """Train once and write every step down."""
    task, optimizer, factor, seed = key
    problem = Problem(TASKS[task].overrides, steps)
    schedule = (
        "scheduler=cosine",
        "scheduler.warmup_steps={warmup}",
        f"optimizer.lr={factor * RATES[task, optimizer]}",
    )
    config, _ = prepare([*problem.words(optimizer, schedule, seed), "clip=norm"])
    with join(config.trainer.device) as world:
        run, plan = build_run(config, world)
        found = Recording(task, optimizer, factor, seed, [], [], [], [], [], [])
        run.network.train()
        for window in run.loader.windows(run.position):
            _step(run, window, found)
            if run.step == plan.total_steps:
                return found
    raise AssertionError("a loader has no end")


def _step(run: Run, window: object, found: Recording) -> None:
    before = [p.detach().clone() for p in run.parameters]
    report = training_step(run, window)  # type: ignore[arg-type]
    change = torch._foreach_sub([p.detach() for p in run.parameters], before)
    found.gradient.append(_rounded(report.health.norm))
    found.update.append(_rounded(torch.stack(torch._foreach_norm(change)).norm()))
    found.loss.append(_rounded(sum(report.losses.values(), torch.zeros(())) * report.weight))
    found.lr.append(float(report.lr or 0.0))
    found.phase.append(report.phase)
    found.samples.append(report.num_samples)


def _rounded(value: torch.Tensor) -> float:
    """Seven digits, as many as there are."""
    return float(f"{float(value):.7g}")

"""What the tables of `ava bench learning_rate` need trained, and what they say of it.

`finder` asks whether the range test's suggestion is as good as the best rate of a grid; `ways`, what every way to a
learning rate reaches and costs. Both average over seeds before they choose or compare.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ava.bench.convergence import BASE, COSINE, SCHEDULES, TOLERANCE
from ava.bench.rate_searches import Job, Training
from ava.bench.trainings import Problem

Row = dict[str, Any]
ONECYCLE = ("scheduler=onecycle",)
"""It warms up by itself."""
ADAPTIVE = ("scheduler=adaptive", "scheduler.warmup_steps={warmup}")

GRIDS = {
    name: tuple(float(f"{10 ** (lowest + k / 2):.2g}") for k in range(9))
    for name, lowest in {"adamw": -5.0, "sgd": -3.5, "lion": -6.0, "adafactor": -4.0, "sophia": -6.0}.items()
}
"""Optimizer -> nine rates, half a power of ten apart."""


@dataclass(frozen=True)
class Way:
    """A way to a learning rate.

    Attributes:
        label: what the table calls it.
        optimizer: with its defaults.
        schedule: overrides; {warmup} in them is the problem's.
        finds: whether the range test comes first.
    """

    label: str
    optimizer: str
    schedule: tuple[str, ...]
    finds: bool = False


PLAIN, GRID = "plain", "grid"
WAYS = {
    PLAIN: Way("default rate, cosine", BASE, COSINE),
    "finder": Way("range test, onecycle", BASE, ONECYCLE, finds=True),
    "adaptive": Way("default rate, adaptive", BASE, ADAPTIVE),
    "finder_adaptive": Way("range test, adaptive", BASE, ADAPTIVE, finds=True),
    "prodigy": Way("prodigy, cosine", "prodigy", COSINE),
    "schedule_free_adamw": Way("schedule_free_adamw", "schedule_free_adamw", SCHEDULES["schedule_free_adamw"]),
    "schedule_free_sgd": Way("schedule_free_sgd", "schedule_free_sgd", SCHEDULES["schedule_free_sgd"]),
}
"""All but the grid, of AdamW unless the label says otherwise. With the plain way a reader sees what searching buys."""


@dataclass(frozen=True)
class Measurement:
    """What is trained on.

    Attributes:
        problems: name -> problem.
        seeds: one training of everything each.
    """

    problems: Mapping[str, Problem]
    seeds: Sequence[int]

    def grid(self, label: str, optimizer: str) -> dict[float, list[Job]]:
        """Rate -> its trainings, one a seed."""
        return {lr: self._of_seeds(label, optimizer, ONECYCLE, lr=lr) for lr in GRIDS[optimizer]}

    def found(self, label: str, optimizer: str) -> list[Job]:
        """The trainings with the rate that the range test suggests, one a seed."""
        return self._of_seeds(label, optimizer, ONECYCLE, finds=True)

    def way(self, label: str, way: Way) -> list[Job]:
        """The trainings of a way, one a seed."""
        return self._of_seeds(label, way.optimizer, way.schedule, finds=way.finds)

    def _of_seeds(
        self, label: str, optimizer: str, schedule: tuple[str, ...], lr: float | None = None, finds: bool = False
    ) -> list[Job]:
        problem = self.problems[label]
        return [Job(label, problem, optimizer, schedule, seed, lr, finds) for seed in self.seeds]


def finder_jobs(asked: Measurement, optimizers: Sequence[str]) -> list[Job]:
    """What `finder_rows` needs trained."""
    jobs: list[Job] = []
    for label in asked.problems:
        for optimizer in optimizers:
            jobs += asked.found(label, optimizer)
            jobs += [job for of_rate in asked.grid(label, optimizer).values() for job in of_rate]
    return jobs


def way_jobs(asked: Measurement, ways: Sequence[str]) -> list[Job]:
    """What `way_rows` needs trained."""
    jobs: list[Job] = []
    for label in asked.problems:
        jobs += [job for name in _with_plain(ways) for job in asked.way(label, WAYS[name])]
        jobs += [job for of_rate in asked.grid(label, BASE).values() for job in of_rate]
    return jobs


def finder_rows(asked: Measurement, optimizers: Sequence[str], done: Mapping[Job, Training]) -> list[Row]:
    """The range test's suggestion beside the grid.

    Args:
        asked: what was trained on.
        optimizers: names in `GRIDS`.
        done: the trainings of `finder_jobs`.

    Returns:
        A row for each problem and optimizer: `problem`, `optimizer`; `suggestions` (of each seed, None where there was
        none), `suggestion` (their median) and `valid`, the mean loss; `grid` (pairs of a rate and its mean loss),
        `best_lr`, `best_valid`; `ratio` of the two losses, `within` the tolerance; `good`, the lowest and the highest
        rate around the best whose losses, and all between, are within the tolerance; `train_ratio`, that of the mean
        training losses at the end, each over its own best of the grid.
    """
    rows = []
    for label in asked.problems:
        for optimizer in optimizers:
            found = [done[job] for job in asked.found(label, optimizer)]
            grid = asked.grid(label, optimizer)
            losses = {lr: _mean_valid(jobs, done) for lr, jobs in grid.items()}
            least = min(statistics.fmean(done[job].train for job in jobs) for jobs in grid.values())
            best_lr = min(losses, key=lambda lr: losses[lr])
            suggestions = [training.lr for training in found]
            valid = statistics.fmean(training.valid for training in found)
            ratio = _ratio(valid, losses[best_lr])
            rows.append({
                "problem": label, "optimizer": optimizer, "suggestions": suggestions,
                "suggestion": _median(suggestions), "valid": valid, "grid": list(losses.items()),
                "train_ratio": _ratio(statistics.fmean(training.train for training in found), least),
                "best_lr": best_lr, "best_valid": losses[best_lr], "ratio": ratio, "within": ratio <= TOLERANCE,
                "good": _around(losses, best_lr),
            })  # fmt: skip
    return rows


def way_rows(asked: Measurement, ways: Sequence[str], done: Mapping[Job, Training]) -> list[Row]:
    """What every way reaches and costs.

    Args:
        asked: what was trained on.
        ways: names in `WAYS`; the plain one and the grid come by themselves.
        done: the trainings of `way_jobs`.

    Returns:
        A row for each problem and way: `problem`, `way`, `lrs` (of each seed), `valid` (the mean loss), `seeds` (each
        one's loss), `ratio` to the grid's best; `steps` and `cpu_s`, the mean cost of one seed with all its searching;
        `steps_ratio` and `cpu_ratio` to the plain way.
    """
    rows = []
    for label in asked.problems:
        grid = asked.grid(label, BASE)
        best = min(grid.values(), key=lambda jobs: _mean_valid(jobs, done))
        found = {WAYS[name].label: (jobs := asked.way(label, WAYS[name]), jobs) for name in _with_plain(ways)}
        found[f"best of {len(grid)} rates, onecycle"] = best, [job for jobs in grid.values() for job in jobs]
        plain = [done[job] for job in asked.way(label, WAYS[PLAIN])]
        for way, (kept, all_trained) in found.items():
            reached = _reached([done[job] for job in kept], _mean_valid(best, done))
            paid = _paid([done[job] for job in all_trained], plain, len(asked.seeds))
            rows.append({"problem": label, "way": way, **reached, **paid})
    return rows


def _reached(trainings: list[Training], best: float) -> Row:
    seeds = [training.valid for training in trainings]
    valid = statistics.fmean(seeds)
    return {"lrs": [one.lr for one in trainings], "valid": valid, "seeds": seeds, "ratio": _ratio(valid, best)}


def _paid(trainings: list[Training], plain: list[Training], num_seeds: int) -> Row:
    """The mean cost over seeds, and its ratio to the plain way's."""
    steps, cpu_s = (sum(one.total_steps for one in trainings), sum(one.total_cpu_s for one in trainings))
    return {
        "steps": steps / num_seeds, "cpu_s": cpu_s / num_seeds,
        "steps_ratio": steps / sum(one.total_steps for one in plain),
        "cpu_ratio": cpu_s / sum(one.total_cpu_s for one in plain),
    }  # fmt: skip


def _with_plain(ways: Sequence[str]) -> list[str]:
    return [name for name in WAYS if name == PLAIN or name in ways]


def _mean_valid(jobs: Sequence[Job], done: Mapping[Job, Training]) -> float:
    return statistics.fmean(done[job].valid for job in jobs)


def _median(suggestions: Sequence[float | None]) -> float | None:
    known = [lr for lr in suggestions if lr is not None]
    return statistics.median(known) if known else None


def _ratio(loss: float, best: float) -> float:
    """Infinite where nothing came to a number."""
    return loss / best if math.isfinite(best) else math.inf


def _around(losses: Mapping[float, float], best_lr: float) -> tuple[float, float]:
    """The lowest and the highest rate about the best without a worse one between than the tolerance allows."""
    rates = sorted(losses)
    first = last = rates.index(best_lr)
    limit = TOLERANCE * losses[best_lr]
    while first > 0 and losses[rates[first - 1]] <= limit:
        first -= 1
    while last + 1 < len(rates) and losses[rates[last + 1]] <= limit:
        last += 1
    return rates[first], rates[last]

"""`ava bench convergence`: what every optimizer reaches with its defaults, over what AdamW reaches with its own.

    ava bench convergence                       every optimizer, digits and a small GPT
    ava bench convergence --seeds 3 --only radam ranger --json convergence.json
    ava bench convergence --problems gpt --only sgd --with optimizer.lr=0.3
    ava bench convergence --seeds 2 --each optimizer.cautious=true "optimizer.sam_rho=0.5 optimizer.sam_adaptive=true"

A run is composed, built and stepped as `ava-train` does it: same batches and start for all, gradients clipped at norm
1, cosine over the whole training after a warmup of 5 %. Only where an optimizer's paper forbids a schedule does it
keep a constant rate (`SCHEDULES`). The loss is the mean over validation data after the last step; beside it stands
the mean training loss over the last tenth of the steps. On digits labels are smoothed in training, as by default,
so that no optimizer gains by ever larger logits; the validation loss then cannot come near 0 (about 0.11 is perfect),
the ratio forgives little errors of the fit, and the training loss (whose floor is 0.50) says the same more finely.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ava.bench import machine
from ava.bench.trainings import PROBLEMS, Problem, positive, take_steps, validation_loss
from ava.config.parts import build_run
from ava.config.resume import prepare
from ava.distributed.world import join
from ava.errors import InputError, nearest
from ava.optimization import list_optimizers

BASE = "adamw"
TOLERANCE = 1.10
"""A default is sound where the validation loss is at most this many times AdamW's."""


COSINE = ("scheduler=cosine", "scheduler.warmup_steps={warmup}")
SCHEDULES = {
    "schedule_free_adamw": ("scheduler=constant", "optimizer.warmup_steps={warmup}"),
    "schedule_free_sgd": ("scheduler=constant", "optimizer.warmup_steps={warmup}"),
}
"""Schedules of those that ask for another than the cosine; {warmup} is the problem's."""


@dataclass(frozen=True)
class Result:
    """What one training reached: mean losses, infinite where they were not numbers."""

    valid: float
    train: float


@dataclass(frozen=True)
class Contender:
    """An optimizer with overrides of its defaults, and what the table calls it."""

    optimizer: str
    overrides: tuple[str, ...]
    label: str


def main(argv: list[str] | None = None) -> int:
    """Train, print the table, and write JSON where asked.

    Raises:
        InputError: `--only` names no optimizer, or `--with` says what cannot be.
    """
    arguments = _parse(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    names = _known(arguments.only)
    problems = {name: PROBLEMS[name] for name in arguments.problems}
    if arguments.each:
        contenders = [Contender(name, (*arguments.extra, *words.split()), f"{name} {words}")
                      for name in arguments.only or [BASE] for words in arguments.each]  # fmt: skip
    else:
        contenders = [Contender(name, tuple(arguments.extra), name) for name in names]
    rows = contest(contenders, problems, range(arguments.seeds))
    _print(rows, list(problems))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=2), encoding="utf-8")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench convergence", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="what to train (default all)")
    add("--seeds", type=positive, default=1, help="trainings of each, whose losses are averaged (default 1)")
    add("--threads", type=positive, default=None, help="torch threads (default: torch's own)")
    add("--only", nargs="+", metavar="NAME", help=f"only these optimizers, beside {BASE}")
    add("--with", nargs="+", metavar="OVERRIDE", default=[], dest="extra", help=f"for all but {BASE}, to try defaults")
    add("--each", nargs="+", metavar="OVERRIDES",
        help=f"a row for each, of --only or {BASE}; several overrides that belong together in quotes")  # fmt: skip
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _known(names: list[str] | None) -> list[str]:
    """The names, all if there are none, each an optimizer's; the base is not among them."""
    known = list_optimizers()
    for name in names or ():
        if name not in known:
            problem = f"no optimizer is called {name!r}; there are: {', '.join(known)}."
            raise InputError(problem, key="--only", value=name, hint=nearest(name, known))
    return [name for name in names or known if name != BASE]


def compare(
    names: list[str], problems: dict[str, Problem], seeds: Iterable[int], extra: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Train every optimizer on every problem.

    Args:
        names: optimizers; the base comes first by itself.
        problems: name -> what to train.
        seeds: one training each; the base has the same.
        extra: overrides for all but the base.

    Returns:
        The rows of `contest`.
    """
    return contest([Contender(name, tuple(extra), name) for name in names], problems, seeds)


def contest(contenders: list[Contender], problems: dict[str, Problem], seeds: Iterable[int]) -> list[dict[str, Any]]:
    """Train every contender on every problem.

    Args:
        contenders: the base with its defaults comes first by itself.
        problems: name -> what to train.
        seeds: one training each; the base has the same.

    Returns:
        One row a contender: `optimizer`, `passes`, and of each problem `NAME`, the mean validation loss, `NAME_train`,
        `NAME_ratio` to the base, and `NAME_seeds`, the validation loss of each seed.
    """
    seeds = list(seeds)
    rows: list[dict[str, Any]] = []
    for one in track([Contender(BASE, (), BASE), *contenders], "training", transient=True):
        row: dict[str, Any] = {"optimizer": one.label, "passes": True}
        for label, problem in problems.items():
            results = [train(problem, one.optimizer, seed, one.overrides) for seed in seeds]
            mean = statistics.fmean(result.valid for result in results)
            ratio = mean / (rows[0][label] if rows else mean)
            row |= {
                label: round(mean, 5), f"{label}_train": round(statistics.fmean(r.train for r in results), 5),
                f"{label}_ratio": round(ratio, 4), f"{label}_seeds": [round(r.valid, 5) for r in results],
                "passes": row["passes"] and ratio <= TOLERANCE,
            }  # fmt: skip
        rows.append(row)
    return rows


def train(problem: Problem, optimizer: str, seed: int = 0, extra: Sequence[str] = ()) -> Result:
    """One training with the optimizer's defaults.

    Args:
        problem: what is trained.
        optimizer: a registered name.
        seed: of the start, the order of the samples and all noise.
        extra: further overrides.

    Raises:
        InputError: an override cannot be.
    """
    words = problem.words(optimizer, SCHEDULES.get(optimizer, COSINE), seed)
    config, _ = prepare([*words, *extra])
    with join(config.trainer.device) as world:
        run, plan = build_run(config, world)
        last = take_steps(run, plan)
        return Result(validation_loss(run, problem.num_valid), last)


def _print(rows: list[dict[str, Any]], problems: list[str]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has no width to fit
    table = Table(title=machine.describe(), title_justify="left")
    table.add_column("optimizer", no_wrap=True)
    for name in problems:
        for heading in (name, f"/ {BASE}", "in training"):
            table.add_column(heading, justify="right")
    table.add_column(f"within {TOLERANCE:.2f}")
    for row in rows:
        cells = [f"{row[key]:.4f}" for name in problems for key in (name, f"{name}_ratio", f"{name}_train")]
        table.add_row(row["optimizer"], *cells, "yes" if row["passes"] else "no")
    console.print(table)

"""`ava bench multitask`: what surgery gains over plainly summing the losses, on four objectives that conflict.

    ava bench multitask                                    every method, 10 seeds
    ava bench multitask --methods pcgrad mgda --seeds 20 --json multitask.json
    ava bench multitask --with model.width=256             where there is room for all four objectives

Each way to train is composed, built and stepped as `ava-train task=digits_multitask surgery=NAME` does it. So that none
is cheated, the learning rate of each is chosen from the same grid on two seeds that count for nothing else, by the
same measure as the table's. Beside the methods stand two controls:

    scalarisation     static weights of the losses, chosen along with the rate from `WEIGHTINGS` on those two seeds
    each alone        four models, one for each objective: what conflict costs, and what nothing on one trunk need reach

The gain is the mean over objectives of the relative change for the better (Delta_m), paired by seed with the plain
sum; its interval is Student's, 95 %. Of twenty methods that change nothing one would look as if it did.

Kurin et al. 2022, https://arxiv.org/abs/2201.04122, on how often tuned scalarisation does as well as surgery.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from rich.table import Table

from ava import registry
from ava.bench import machine
from ava.bench.multitask_statistics import gain, interval, mean_scores, paired_gains
from ava.bench.multitask_trainings import METRICS, Entrant, Outcome, train
from ava.bench.tables import console
from ava.bench.trainings import positive
from ava.errors import InputError, nearest

BASE = "none"
"""The surgery that leaves the sum of the losses as it is."""
RATES = (3e-3, 1e-2, 3e-2)
TUNING_SEEDS = (1000, 1001)
WEIGHTINGS: tuple[dict[str, float], ...] = (
    {}, {"left": 2.0, "right": 2.0}, {"left": 0.5, "right": 0.5}, {"turn": 2.0}, {"turn": 0.5},
    {"reconstruction": 3.0}, {"reconstruction": 2.0}, {"reconstruction": 0.5},
)  # fmt: skip
"""Objective -> static weight where it is not 1; the plain sum is one of them."""
Trainer = Callable[[Entrant, Sequence[str], int], Outcome]


def main(argv: list[str] | None = None) -> int:
    """Train, print the table, and write JSON where asked.

    Raises:
        InputError: `--methods` names no surgery method.
    """
    arguments = _parse(argv)
    torch.set_num_threads(arguments.threads)
    entrants = line_up(_known(arguments.methods), arguments.rates, arguments.extra)
    rows = contest(entrants, arguments.seeds, arguments.steps)
    _print(rows, " ".join([f"{arguments.seeds} seeds of {arguments.steps} steps", *arguments.extra]))
    if arguments.json:
        said = {"steps": arguments.steps, "seeds": arguments.seeds, "overrides": arguments.extra}
        found = {"machine": machine.describe(), **said, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench multitask", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--methods", nargs="*", metavar="NAME", help=f"only these surgery methods, beside {BASE} (default all)")
    add("--seeds", type=positive, default=10, help="trainings of each (default 10)")
    add("--steps", type=positive, default=400, help="steps of each training (default 400)")
    add("--rates", type=float, nargs="+", default=RATES, help=f"learning rates to choose from (default {RATES})")
    add("--with", nargs="+", metavar="OVERRIDE", default=[], dest="extra", help="for all, such as trainer.clip=none")
    add("--threads", type=positive, default=1, help="torch threads (default 1)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _known(names: list[str] | None) -> list[str]:
    """The names, all if none were given, each a method's; the base is not among them."""
    known = registry.surgery.names()
    for name in names or ():
        if name not in known:
            problem = f"no surgery is called {name!r}; there are: {', '.join(known)}."
            raise InputError(problem, key="--methods", value=name, hint=nearest(name, known))
    return [name for name in (known if names is None else names) if name != BASE]


def line_up(methods: Sequence[str], rates: Sequence[float], extra: Sequence[str] = ()) -> list[Entrant]:
    """All that is compared: the plain sum first, then the methods, then the controls.

    Args:
        methods: registered surgery methods.
        rates: learning rates that each may choose from.
        extra: overrides for all.
    """
    by_rate = [(f"optimizer.lr={rate}",) for rate in rates]
    weightings = [tuple(f"task.{name}_weight={weight}" for name, weight in one.items()) for one in WEIGHTINGS]

    def entrant(label: str, settings: Sequence[tuple[str, ...]], apart: bool = False) -> Entrant:
        return Entrant(label, tuple((*extra, *words, *rate) for words in settings for rate in by_rate), apart)

    surgery = [entrant(name, [(f"surgery={name}",)]) for name in (BASE, *methods)]
    return [*surgery, entrant("scalarisation", weightings), entrant("each alone", [()], apart=True)]


def contest(entrants: Sequence[Entrant], num_seeds: int, steps: int) -> list[dict[str, Any]]:
    """Tune every entrant, then train it with every seed.

    Args:
        entrants: the plain sum first.
        num_seeds: trainings of each.
        steps: the length of each.

    Returns:
        One row an entrant: `label`, `overrides` (the chosen candidate), `tuning` (each candidate's gain on the tuning
        seeds over the plain sum's first candidate), `mean` of each objective, `seeds` (each one's scores), `gains` of
        each seed, `gain` and `margin`, `verdict`, and `conflicts`.
    """
    count = len(TUNING_SEEDS) + sum(len(one.candidates) * len(TUNING_SEEDS) + num_seeds for one in entrants)
    rows: list[dict[str, Any]] = []
    with Progress(transient=True) as progress:
        bar = progress.add_task("training", total=count)

        def trained(entrant: Entrant, candidate: Sequence[str], seed: int) -> Outcome:
            outcome = train(entrant, candidate, seed, steps)
            progress.advance(bar)
            return outcome

        first = [trained(entrants[0], entrants[0].candidates[0], seed).scores for seed in TUNING_SEEDS]
        for entrant in entrants:
            tuning = _tune(entrant, first, trained)
            best = max(entrant.candidates, key=lambda candidate: tuning[" ".join(candidate)])
            outcomes = [trained(entrant, best, seed) for seed in range(num_seeds)]
            rows.append(_row(entrant, best, tuning, outcomes, rows[0]["seeds"] if rows else None))
    return rows


def _tune(entrant: Entrant, first: list[dict[str, float]], trained: Trainer) -> dict[str, float]:
    """Candidate -> its mean gain over `first` on the tuning seeds, minus infinity where it is no number."""
    found = {}
    for candidate in entrant.candidates:
        seeds = [trained(entrant, candidate, seed).scores for seed in TUNING_SEEDS]
        over = gain(mean_scores(seeds), mean_scores(first), mean_scores(first))
        found[" ".join(candidate)] = over if math.isfinite(over) else -math.inf
    return found


def _row(
    entrant: Entrant, best: Sequence[str], tuning: dict[str, float], outcomes: list[Outcome],
    base: list[dict[str, float]] | None,
) -> dict[str, Any]:  # fmt: skip
    seeds = [outcome.scores for outcome in outcomes]
    gains = paired_gains(seeds, seeds if base is None else base)
    over = interval(gains)
    conflicts = sum(outcome.conflicts for outcome in outcomes) / len(outcomes)
    return {
        "label": entrant.label, "overrides": " ".join(best), "tuning": tuning, "mean": mean_scores(seeds),
        "seeds": seeds, "gains": gains, "gain": over.mean, "margin": over.margin, "verdict": over.verdict,
        "conflicts": None if entrant.apart else conflicts,
    }  # fmt: skip


def _print(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=f"{title}; {machine.describe()}", title_justify="left")
    table.add_column("surgery", no_wrap=True)
    headings = [metric.removeprefix("eval/").replace("_", " ") for metric in METRICS.values()]
    for heading in (*headings, f"gain over {BASE}, %", "95 %", "in conflict", "rate"):
        table.add_column(heading, justify="right")
    table.add_column(f"over {BASE}")
    for row in rows:
        is_base = row is rows[0]
        cells = [f"{row['mean'][name]:.4f}" for name in METRICS]
        cells += ["", ""] if is_base else [f"{100 * row['gain']:+.2f}", f"+-{100 * row['margin']:.2f}"]
        cells += ["" if row["conflicts"] is None else f"{row['conflicts']:.2f}"]
        table.add_row(row["label"], *cells, row["overrides"].rpartition("=")[2], "" if is_base else row["verdict"])
    console().print(table)
    console().print("scalarisation: " + next(row["overrides"] for row in rows if row["label"] == "scalarisation"))

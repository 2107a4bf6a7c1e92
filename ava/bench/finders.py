"""`ava bench finders`: what learning-rate finders leave behind, refuse, suggest and cost, Ava's beside others'.

    ava bench finders                                all that are installed
    ava bench finders --finders ava --seeds 10 --json finders.json

Asked on scikit-learn's digits, with a perceptron of 26,000 parameters (batch normalization, dropout), AdamW and two
groups whose rates differ by a factor of 10:

- what is bit for bit as before in a training of 20 steps, after the search, after an error raised in the model's 30th
  forward pass, and after Ctrl-C there (yes and no stand for all three where they agree);
- whether the groups keep their ratio during the search;
- what is said where there is nothing to find;
- the suggestion for a fresh model, and the validation loss of torch's OneCycleLR with it over that of the best of nine
  rates, both averaged over the seeds, which choose the grid's best, too (that favours it a little);
- the time of a search, and its processor time over that of a bare loop of as many steps, the median over rounds.

All finders get the range 1e-7 to 10 in 100 steps unless the row says otherwise, and their own defaults. How each is
used stands in `ava/bench/arms/peer_finders.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ava.bench import machine
from ava.bench.arms.finder_arm import Finder
from ava.bench.arms.peer_finders import PACKAGES, finder_named, is_installed
from ava.bench.finder_questions import (
    CASES,
    ENDINGS,
    Aftermath,
    Answer,
    Case,
    Cost,
    aftermath,
    answer,
    costs,
    grid_losses,
    reached,
)
from ava.bench.finder_scene import RATIO
from ava.bench.trainings import positive

Cells = dict[str, str]
WIDTH = 60
"""Characters of an error's message that the table shows; the file of `--json` has all."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    torch.set_num_threads(arguments.threads)
    finders = {name: finder_named(name) for name in arguments.finders if is_installed(name)}
    seeds = range(arguments.seeds)
    losses = grid_losses(seeds, arguments.steps)
    measured = {name: measure(finder, seeds, arguments.steps, min(losses.values())) for name, finder in finders.items()}
    for name, cost in costs(finders, arguments.rounds).items():
        measured[name]["cost"] = asdict(cost) | {"ratio": cost.ratio}
        measured[name]["cells"] |= _cost_cells(cost)
    cells = {name: found.pop("cells") for name, found in measured.items()}
    _print(cells, f"{len(seeds)} seeds; the grid's best rate is {min(losses, key=lambda lr: losses[lr]):.2g}")
    for name in arguments.finders:
        if name not in finders:
            print(f"Not measured: {name} is not installed.")
    if arguments.json:
        found = {"machine": machine.describe(), "table": cells, "grid": list(losses.items()), "measured": measured}
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ava bench finders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--finders", nargs="+", choices=PACKAGES, default=list(PACKAGES), help="which ones (default all)")
    add("--seeds", type=positive, default=3, help="searches and trainings of each (default 3)")
    add("--steps", type=positive, default=300, help="steps of a training at a rate (default 300)")
    add("--rounds", type=positive, default=5, help="searches whose time counts (default 5)")
    add("--threads", type=positive, default=1, help="torch threads (default 1)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def measure(finder: Finder, seeds: Sequence[int], num_steps: int, best: float) -> dict[str, Any]:
    """All answers of one finder but its cost.

    Args:
        finder: which one.
        seeds: of fresh trainings.
        num_steps: the length of a training at the suggested rate.
        best: the grid's lowest mean loss.

    Returns:
        `aftermath` (ending -> what was kept, what was raised, the rates used), `cases` (case -> answers of the seeds),
        `honest` (answers, losses, and the ratio of their mean to the best; None where a seed has no rate), and `cells`,
        question -> words.
    """
    left = {ending: aftermath(finder, ending) for ending in ENDINGS}
    cases = {name: [answer(finder, case, seed) for seed in seeds] for name, case in CASES.items()}
    honest = [answer(finder, Case(), seed) for seed in seeds]
    losses = [None if a.lr is None else reached(a.lr, seed, num_steps) for a, seed in zip(honest, seeds, strict=True)]
    known = [loss for loss in losses if loss is not None]
    ratio = statistics.fmean(known) / best if len(known) == len(losses) else None
    cells = _kept_cells(left) | {f"{name}: says": _told(answers) for name, answers in cases.items()}
    cells["suggested rate"] = _told(honest)
    cells["loss with it / grid's best"] = "none" if ratio is None else f"{ratio:.3f}"
    return {
        "aftermath": {ending: asdict(one) for ending, one in left.items()},
        "cases": {name: [asdict(one) for one in answers] for name, answers in cases.items()},
        "honest": {"answers": [asdict(one) for one in honest], "losses": losses, "ratio": ratio}, "cells": cells,
    }  # fmt: skip


def _kept_cells(left: dict[str, Aftermath]) -> Cells:
    cells = {}
    for what in left["finished"].kept:
        answers = {ending: "yes" if one.kept[what] else "NO" for ending, one in left.items()}
        agreed = len(set(answers.values())) == 1
        words = answers["finished"] if agreed else ", ".join(f"{end}: {said}" for end, said in answers.items())
        cells[f"{what} as before"] = words
    for ending in ("error", "Ctrl-C"):
        raised = ENDINGS[ending]
        cells[f"{ending} arrives as ({raised.__name__ if raised else None})"] = left[ending].arrived or "nothing"
    cells[f"groups' ratio during the search ({RATIO:g})"] = _span(*left["finished"].ratios, digits=4)
    rates = left["finished"].rates
    cells["rates used, first and last"] = f"{rates[0][0]:.2g}, {rates[-1][0]:.2g} ({len(rates)} steps)"
    return cells


def _told(answers: Sequence[Answer]) -> str:
    """The lowest and the highest rate, and the first of what is said instead."""
    lrs = sorted(one.lr for one in answers if one.lr is not None)
    words = [_span(lrs[0], lrs[-1])] if lrs else []
    said = [one.said for one in answers if one.said is not None]
    if said:
        count = "" if not lrs else f"{len(said)} of {len(answers)}: "
        words.append(count + (said[0] if len(said[0]) <= WIDTH else said[0][: WIDTH - 1] + "…"))
    return "; ".join(words)


def _span(lowest: float, highest: float, digits: int = 2) -> str:
    return " to ".join(dict.fromkeys(f"{end:.{digits}g}" for end in (lowest, highest)))


def _cost_cells(cost: Cost) -> Cells:
    return {
        "steps of a search": f"{statistics.median(cost.steps):.0f}",
        "wall time of a search": f"{statistics.median(cost.wall_s) * 1e3:.0f} ms",
        "CPU time / bare loop": f"{cost.ratio:.2f}",
    }


def _print(cells: dict[str, Cells], caption: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)  # a file has no width to fit
    table = Table(title=machine.describe(), title_justify="left", caption=caption, caption_justify="left")
    for heading in ("question", *cells):
        table.add_column(heading)
    for question in next(iter(cells.values()), {}):
        table.add_row(question, *(answers[question] for answers in cells.values()))
    console.print(table)

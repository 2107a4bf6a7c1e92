"""`ava bench stability`: how often trainings fail, what heals them, and what that costs.

    ava bench stability                                     every table, digits and a small GPT
    ava bench stability --quick                             a few minutes: fewer rates, seeds and kinds
    ava bench stability --tables faults --guards clip_skip ladder --optimizers adamw --seeds 3 --json stability.json
    ava bench stability --tables faults --held-out          other faults, other models

`faults`: kinds of `ava.bench.faults`, at known attempts. A fault is healed where the validation loss after the last
step is at most 0.03 nats above that of the clean training: same seed, optimizer, rate and guard. Steps to recover are
attempts from the fault's end until the training loss is back at the clean training's of the same step, over healed
ones; beside them stand the steps that were taken again, which are attempts beyond the clean training's. A rank that
diverges is one of three processes. The kind lost_step does no harm: its row, which is in no total, says how far losses
wander for no reason.
`grid`: every optimizer and guard at seven rates over two decades. A training has failed that ended early, or whose
validation loss is no number or above that of knowing frequencies only. Regret is against the best rate and guard of
the same problem, optimizer and seed.
`clean`: longer trainings in which nothing is wrong: alarms, and the loss over clipping alone, paired by seed.
`cost`: processor time of whole steps, arms in turns.
`claims`: how many of AdamW's steps a challenger needs for AdamW's final loss. Both have the best rate of the same grid,
chosen on seeds that count for nothing else; trainings of six lengths, each with its whole schedule, are interpolated.

Guards: none; clip (norm 1); clip_skip (and steps that are not finite left out); skip (recovery=skip); ladder
(recovery=ladder). The latter three clip at norm 1 too. With `--json` every training is kept, and a file that exists is
gone on with: no training in it is repeated that had the same scenario, configuration, versions and commit.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from ava.bench import machine, stability_plans
from ava.bench.faults import list_faults
from ava.bench.stability_book import Book
from ava.bench.stability_cost import cost_rows
from ava.bench.stability_plans import BEST, TUNED_ON, Asked, with_clean
from ava.bench.stability_print import print_tables
from ava.bench.stability_tables import best_rate, claim_rows, clean_rows, fault_rows, fault_totals, grid_rows
from ava.bench.stability_trainings import GUARDS, Outcome, Scenario
from ava.bench.tables import console
from ava.bench.trainings import not_negative, positive
from ava.errors import InputError, nearest

TABLES = ("faults", "grid", "clean", "cost", "claims")
OPTIMIZERS = tuple(BEST["digits"])
CHALLENGERS = ("agmohd", "agmohd state=factored")
QUICK_KINDS = ("nan_batch", "gradient_spike", "lr_spike", "weight_spike", "nan_weight", "bad_start")


def main(argv: list[str] | None = None) -> int:
    """Train, print the tables, and write JSON where asked.

    Raises:
        InputError: the file of `--json` cannot be used, or an optimizer has no grid.
    """
    arguments = _parse(argv)
    torch.set_num_threads(1)
    asked = _asked(arguments)
    book = Book(arguments.json, arguments.any_commit, arguments.jobs)
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.tables:
        tables |= _measure(name, asked, book, arguments)
    console().print(machine.describe(), highlight=False)
    print_tables(tables, arguments.markdown)
    book.write(tables)
    return 0


def _measure(name: str, asked: Asked, book: Book, arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The tables of one name."""
    if name == "cost":
        return {"cost": cost_rows(asked, arguments.rounds)}
    if name == "claims":
        return {"claims": _claims(dataclasses.replace(asked, seeds=range(arguments.claim_seeds)), book)}
    if name == "faults":
        scenarios = stability_plans.faulty(asked)
        rows = fault_rows(scenarios, _train(book, with_clean(scenarios), name))
        return {"faults": rows, "fault totals": fault_totals(rows)}
    if name == "grid":
        scenarios = stability_plans.grid(asked)
        return {"grid": grid_rows(scenarios, _train(book, scenarios, name))}
    scenarios = stability_plans.clean(dataclasses.replace(asked, seeds=range(arguments.clean_seeds)))
    return {"clean": clean_rows(scenarios, _train(book, scenarios, name))}


def _claims(asked: Asked, book: Book) -> list[dict[str, Any]]:
    contestants = ["adamw", *CHALLENGERS]
    searched = stability_plans.tuning(asked, contestants)
    found = _train(book, searched, "rates")
    best = {
        (problem, optimizer): best_rate(
            [one for one in searched if (one.problem, one.optimizer) == (problem, optimizer)], found
        )
        for problem in asked.problems
        for optimizer in contestants
    }
    scenarios = stability_plans.claims(asked, best, CHALLENGERS)
    return claim_rows(scenarios, _train(book, scenarios, "claims"))


def _train(book: Book, scenarios: Sequence[Scenario], name: str) -> dict[Scenario, Outcome]:
    # Drawn after each training only: a thread that draws would be counted as processor time.
    with Progress(transient=True, auto_refresh=False) as progress:
        task = progress.add_task(name, total=len(scenarios))

        def told(one: Scenario) -> None:
            what = "clean" if one.fault is None else one.fault.kind
            said = f"{name}: {one.problem} {one.optimizer} {one.guard} {what}"
            progress.update(task, advance=1, description=said, refresh=True)

        return book.carry_out(scenarios, told)


def _asked(arguments: argparse.Namespace) -> Asked:
    for name in arguments.optimizers:
        if name.split()[0] not in OPTIMIZERS:
            problem = f"there are rates for: {', '.join(OPTIMIZERS)}."
            raise InputError(problem, key="--optimizers", value=name, hint=nearest(name, OPTIMIZERS))
    first = arguments.first_seed
    return Asked(
        arguments.problems, arguments.optimizers, arguments.guards, range(first, first + arguments.seeds),
        arguments.kinds, arguments.held_out, arguments.fp16,
    )  # fmt: skip


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ava bench stability", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, kinds = parser.add_argument, [kind.name for kind in list_faults()]
    add("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="what to measure (default all)")
    add("--problems", nargs="+", choices=TUNED_ON, default=list(TUNED_ON), help="what to train (default both)")
    add("--optimizers", nargs="+", default=list(OPTIMIZERS), metavar="NAME",
        help="with options: 'agmohd state=factored' (default all that have a grid)")  # fmt: skip
    add("--guards", nargs="+", choices=GUARDS, default=list(GUARDS), help="against faults (default all)")
    add("--kinds", nargs="+", choices=kinds, default=kinds, metavar="KIND", help=f"of faults: {', '.join(kinds)}")
    add("--held-out", action="store_true", help="faults at other times, of other sizes, with other models")
    add("--fp16", action="store_true", help="the overflow on digits in float16, which takes a processor minutes")
    add("--first-seed", type=not_negative, default=0, metavar="SEED", help="of faults and grid (default 0)")
    add("--seeds", type=positive, default=3, help="of faults and grid (default 3)")
    add("--clean-seeds", type=positive, default=7, help="of clean trainings (default 7, about 10,000 steps an arm)")
    add("--claim-seeds", type=positive, default=6, help="of the claims (default 6)")
    add("--rounds", type=positive, default=40, help="turns of each arm of the table of costs (default 40)")
    add("--quick", action="store_true", help="the fault table for AdamW, six kinds and one seed; three guards")
    add("--jobs", type=positive, default=1, help="trainings at a time (default 1)")
    add("--json", type=Path, help="keep every training here, and do not repeat those that stand there")
    add("--any-commit", action="store_true", help="take over trainings of other commits, too")
    add("--markdown", action="store_true", help="print tables for a page")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.tables, arguments.optimizers, arguments.seeds = ["faults"], ["adamw"], 1
        arguments.guards, arguments.kinds = ["clip", "clip_skip", "ladder"], list(QUICK_KINDS)
    return arguments

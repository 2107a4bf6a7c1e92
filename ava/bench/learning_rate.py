"""`ava bench learning_rate`: what the ways to a learning rate reach, and what they cost.

    ava bench learning_rate                      both tables, on digits and a small GPT
    ava bench learning_rate --tables finder --only lion sgd --seeds 3
    ava bench learning_rate --problems digits --ways adaptive prodigy --json learning_rate.json

`finder`: every optimizer with the onecycle schedule, at nine rates and at the one that the finder suggests (the
section `lr_finder` with its defaults, before the training, on the training's own start). A suggestion is good where
its validation loss is at most 1.10 times that of the grid's best rate. The ratio in training is that of the mean
training losses over the last tenth of the steps, which is what a search before the training can foresee.

`ways`: AdamW with a rate from a range test, from the adaptive schedule, from both, from the grid, or its default with
a cosine; and optimizers that need no search. A cost holds all searching, in optimizer steps and in processor time;
the steps do not depend on what else the machine does. The grid's best is chosen by the validation loss that the table
shows, which favours it a little.

Problems, batches, clipping and evaluation are those of `ava bench convergence`; there is a warmup of 5 % but for
onecycle, which rises by itself. With `--json` every training is written as soon as it is done, and a file that exists
is gone on with: no training in it is repeated that had the same configuration, seed, number of threads, versions and
commit of Ava (`--any-commit`: or another commit). So a measurement can be interrupted, and taken in pieces, also by
several processes with one file. Of a checkout that differs from its commit it is known only that it differs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ava.bench import machine
from ava.bench.convergence import TOLERANCE
from ava.bench.learning_rate_tables import (
    GRIDS,
    PLAIN,
    WAYS,
    Measurement,
    Row,
    finder_jobs,
    finder_rows,
    way_jobs,
    way_rows,
)
from ava.bench.rate_searches import Job, Training
from ava.bench.training_book import TrainingBook
from ava.bench.trainings import PROBLEMS, positive

TABLES = ("finder", "ways")


def main(argv: list[str] | None = None) -> int:
    """Train, print the tables, and write JSON where asked.

    Raises:
        InputError: the file of `--json` cannot be used.
    """
    arguments = _parse(argv)
    torch.set_num_threads(arguments.threads)
    first = arguments.first_seed
    asked = Measurement({name: PROBLEMS[name] for name in arguments.problems}, range(first, first + arguments.seeds))
    jobs: list[Job] = []
    if "finder" in arguments.tables:
        jobs += finder_jobs(asked, arguments.only)
    if "ways" in arguments.tables:
        jobs += way_jobs(asked, arguments.ways)
    book = TrainingBook(arguments.json, arguments.any_commit)
    done = _train(book, list(dict.fromkeys(jobs)))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has no width to fit
    tables: dict[str, list[Row]] = {}
    if "finder" in arguments.tables:
        tables["finder"] = finder_rows(asked, arguments.only, done)
        console.print(_finder_table(tables["finder"]))
    if "ways" in arguments.tables:
        tables["ways"] = way_rows(asked, arguments.ways, done)
        console.print(_way_table(tables["ways"]))
    if book.num_foreign:
        console.print(f"{book.num_foreign} of {len(done)} trainings were made by other commits.")
    book.write(tables)
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="ava bench learning_rate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    searched = [name for name in WAYS if name != PLAIN]
    add("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="what to measure (default both)")
    add("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="what to train (default all)")
    add("--only", nargs="+", choices=GRIDS, default=list(GRIDS), help="optimizers of the first table (default all)")
    add("--ways", nargs="+", choices=searched, default=searched,
        help="ways of the second table, beside AdamW's default rate and the grid (default all)")  # fmt: skip
    add("--first-seed", type=int, default=0, metavar="SEED", help="the first of the seeds (default 0)")
    add("--seeds", type=positive, default=1, help="trainings of each, whose losses are averaged (default 1)")
    add("--threads", type=positive, default=1, help="torch threads (default 1)")
    add("--json", type=Path, help="write every training here as it is done, and do not repeat those that stand there")
    add("--any-commit", action="store_true", help="take over trainings of other commits, too, and say of how many")
    return parser.parse_args(argv)


def _train(book: TrainingBook, jobs: list[Job]) -> dict[Job, Training]:
    # Drawn after each training only: a thread that draws would be counted as processor time.
    with Progress(transient=True, auto_refresh=False) as progress:
        task = progress.add_task("training", total=len(jobs))

        def told(job: Job) -> None:
            progress.update(task, advance=1, description=f"{job.label} {job.optimizer}", refresh=True)

        return book.carry_out(jobs, told)


def _finder_table(rows: list[Row]) -> Table:
    table = _table("finder", ("problem", "optimizer"), (
        "suggested rate", "over seeds", "loss", "grid's best rate", "loss ", "ratio", f"within {TOLERANCE:.2f}",
        f"rates within {TOLERANCE:.2f}", "ratio in training",
    ))  # fmt: skip
    for row in rows:
        table.add_row(
            row["problem"], row["optimizer"], _rate(row["suggestion"]), _span(row["suggestions"]),
            f"{row['valid']:.4f}", _rate(row["best_lr"]), f"{row['best_valid']:.4f}", f"{row['ratio']:.3f}",
            "yes" if row["within"] else "no", f"{_rate(row['good'][0])} to {_rate(row['good'][1])}",
            f"{row['train_ratio']:.3f}",
        )  # fmt: skip
    return table


def _way_table(rows: list[Row]) -> Table:
    table = _table("ways", ("problem", "way"), (
        "rate", "loss", "over seeds", "/ grid's best", "steps", "/ plain", "CPU s", "/ plain ",
    ))  # fmt: skip
    for row in rows:
        table.add_row(
            row["problem"], row["way"], _span(row["lrs"]), f"{row['valid']:.4f}",
            " to ".join(dict.fromkeys(f"{loss:.4f}" for loss in (min(row["seeds"]), max(row["seeds"])))),
            f"{row['ratio']:.3f}", f"{row['steps']:.0f}",
            f"{row['steps_ratio']:.2f}", f"{row['cpu_s']:.1f}", f"{row['cpu_ratio']:.2f}",
        )  # fmt: skip
    return table


def _table(name: str, words: Sequence[str], figures: Sequence[str]) -> Table:
    table = Table(title=f"{name}: {machine.describe()}", title_justify="left")
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right")
    return table


def _rate(lr: float | None) -> str:
    return "none" if lr is None else f"{lr:.2g}"


def _span(lrs: Sequence[float | None]) -> str:
    """The lowest and the highest, and how many there are none of."""
    known = sorted(lr for lr in lrs if lr is not None)
    none = [f"{len(lrs) - len(known)} none"] if len(known) < len(lrs) else []
    ends = dict.fromkeys(_rate(lr) for lr in (known[:1] + known[-1:]))
    return ", ".join([" to ".join(ends), *none]) if known else "none"

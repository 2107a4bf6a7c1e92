"""`ava bench plateaus`: how often noise is taken for a plateau, and how long a real one goes unseen.

    ava bench plateaus                        false alarms and delays, beside torch's ReduceLROnPlateau
    ava bench plateaus --runs 1000 --patience 5 10 --json plateaus.json

Every run is a seeded series of 1,000 losses, noise a share of the loss. On those that fall all the way, whatever is
called a plateau is a false alarm: the share of runs with one. On those that fall from 2 to 1 over 300 steps and then
stay level, a plateau before the level is a false alarm too, and the delay is the median number of steps from there to
the first plateau. `level` never falls at all. Both detectors have their defaults but for the patience: ours takes what
falls by less than 0.001 for no improvement, torch's by less than 0.01 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ava.bench import machine
from ava.bench.trainings import positive
from ava.optimization import PlateauDetector

STEPS, KNEE = 1000, 300
Array = np.ndarray[tuple[int], np.dtype[np.float64]]
CURVES: dict[str, Callable[[Array], Array]] = {
    "linear 2 to 1": lambda t: 2 - t / STEPS,
    "1 + exp(-2 t / 1000)": lambda t: 1 + np.exp(-2 * t / STEPS),
    "3 (t + 10)^-0.3": lambda t: 3 * (t + 10) ** -0.3,
    "knee at 300": lambda t: 2 - np.minimum(t, KNEE) / KNEE,
    "level": lambda t: np.ones_like(t),
}
LEVEL_FROM = {"knee at 300": KNEE, "level": 0}
"""Where a curve stops falling; others never do."""
NOISES = (0.01, 0.1, 0.3)
KINDS = ("gaussian", "t3", "ar0.5")


@dataclass(frozen=True)
class Cell:
    """One kind of series.

    Attributes:
        curve: a key of `CURVES`.
        kind: gaussian; t3, heavy-tailed; ar0.5, each value half the one before.
        noise: standard deviation over the loss.
        patience: of the detectors.
    """

    curve: str
    kind: str
    noise: float
    patience: int


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    cells = [Cell(c, k, n, p) for c in CURVES for k in KINDS for n in NOISES for p in arguments.patience]
    rows = [measure(cell, arguments.runs) for cell in track(cells, "series", transient=True)]
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=2), encoding="utf-8")
    return 0


def measure(cell: Cell, runs: int) -> dict[str, Any]:
    """The first plateau that each detector sees in each of `runs` series.

    Returns:
        The cell's fields, and of each detector NAME the share of false alarms, `NAME_alarms`, and `NAME_delay`: the
        median over the other runs, None where most of them never see it or there is nothing to see.
    """
    level = LEVEL_FROM.get(cell.curve, STEPS)
    series = [_series(cell, seed) for seed in range(runs)]
    row: dict[str, Any] = dict(vars(cell))
    for name, build in (("ava", _ours), ("torch", _torchs)):
        first = [_first(build(cell.patience), values) for values in series]
        row[f"{name}_alarms"] = sum(step < level for step in first) / runs
        delays = [step - level for step in first if step >= level]
        median = statistics.median(delays) if delays else STEPS
        row[f"{name}_delay"] = median if level + median < STEPS else None
    return row


def _series(cell: Cell, seed: int) -> list[float]:
    curve, generator = CURVES[cell.curve](np.arange(STEPS, dtype=np.float64)), np.random.default_rng(seed)
    heavy = cell.kind == "t3"
    noise = generator.standard_t(3, STEPS) / 3**0.5 if heavy else generator.standard_normal(STEPS)
    if cell.kind == "ar0.5":
        for k in range(1, STEPS):
            noise[k] = 0.5 * noise[k - 1] + 0.75**0.5 * noise[k]
    return [float(value) for value in curve + cell.noise * curve * noise]


def _ours(patience: int) -> Callable[[float], bool]:
    return PlateauDetector(patience=patience).step


def _torchs(patience: int) -> Callable[[float], bool]:
    """Whether torch's schedule has lowered the rate."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience)

    def step(value: float) -> bool:
        scheduler.step(value)
        return bool(optimizer.param_groups[0]["lr"] < 1.0)

    return step


def _first(detect: Callable[[float], bool], values: Sequence[float]) -> int:
    """The step of the first plateau; `STEPS` where none is seen."""
    return next((step for step, value in enumerate(values) if detect(value)), STEPS)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench plateaus", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=positive, default=100, help="series of each kind (default 100)")
    parser.add_argument("--patience", type=positive, nargs="+", default=[10], help="of both detectors (default 10)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table(title=f"false alarms, and median delay in steps; {machine.describe()}", title_justify="left")
    for heading in ("curve", "noise", "patience", "false alarms", "torch's", "delay", "torch's "):
        table.add_column(heading, justify="left" if heading == "curve" else "right")
    for row in rows:
        delays = ["" if (d := row[f"{name}_delay"]) is None else f"{d:.0f}" for name in ("ava", "torch")]
        alarms = [f"{row[f'{name}_alarms']:.1%}" for name in ("ava", "torch")]
        table.add_row(row["curve"], f"{row['noise']:.0%} {row['kind']}", str(row["patience"]), *alarms, *delays)
    Console(width=120).print(table)

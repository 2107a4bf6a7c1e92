"""`ava bench landscapes`: where surgery methods end on the toy problems of the PCGrad, CAGrad and Nash-MTL papers.

    ava bench landscapes                          every method from every start, beside plainly summing
    ava bench landscapes --plot landscapes.png --json landscapes.json
    ava bench landscapes --methods sum mgda --steps 20000

Adam with the papers' rate of 0.001. Who rests at the goal stops; everyone else takes all steps: 100,000 as in the
CAGrad paper, 50,000 as in those of Nash-MTL and FAMO, 250,000 where the PCGrad paper takes 500,000. GradNorm and
uncertainty weighting are left out: they are made for losses above 0, and these are not. UPGrad is left out because of
two gradients it makes what PCGrad makes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from ava.bench import machine
from ava.bench.landscape_descent import Descent, descend
from ava.bench.landscape_problems import TWO_VALLEYS, UNLIKE_VALLEYS, VALLEY, Landscape, Point
from ava.bench.trainings import positive

METHODS = ("sum", "pcgrad", "graddrop", "mgda", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "famo")
DEFAULTS = {
    TWO_VALLEYS.name: METHODS,
    UNLIKE_VALLEYS.name: ("sum", "mgda", "nash_mtl", "famo"),
    VALLEY.name: ("sum", "pcgrad"),
}
FAMO = {TWO_VALLEYS.name: (-21.0, -21.0), UNLIKE_VALLEYS.name: (-2.1, -21.0), VALLEY.name: (-250.0, -310.0)}
"""What FAMO has to know: how low the losses can go."""
LANDSCAPES = {landscape.name: landscape for landscape in (TWO_VALLEYS, UNLIKE_VALLEYS, VALLEY)}

Results = dict[str, dict[str, list[Descent]]]
"""Landscape -> method -> one descent for each start."""


def main(argv: list[str] | None = None) -> int:
    """Descend, print the tables, and write picture and JSON where asked."""
    arguments = _parse(argv)
    results = measure(arguments.methods, arguments.steps)
    for name, descents in results.items():
        _print(LANDSCAPES[name], descents)
    if arguments.json:
        content = {"machine": machine.describe(), "landscapes": _plain(results)}
        arguments.json.write_text(json.dumps(content, indent=2), encoding="utf-8")
    if arguments.plot:
        from ava.bench.landscape_figure import write

        for path in write(results, LANDSCAPES, arguments.plot):
            print(f"wrote {path}")
    return 0


def measure(methods: list[str] | None = None, steps: int | None = None) -> Results:
    """Follow every method from every start.

    Args:
        methods: None for those that each paper compares.
        steps: the most to take; None for the landscape's own.
    """
    tasks = [
        (landscape, method, start)
        for landscape in LANDSCAPES.values()
        for method in methods or DEFAULTS[landscape.name]
        for start in landscape.starts
    ]
    results: Results = {}
    for landscape, method, start in track(tasks, "descents", transient=True):
        most = min(steps or landscape.steps, landscape.steps)
        found = descend(landscape, method, start, most, **_options(landscape, method))
        results.setdefault(landscape.name, {}).setdefault(method, []).append(found)
    return results


def _options(landscape: Landscape, method: str) -> dict[str, Any]:
    """FAMO's weights decay nowhere here, as its authors have it on their toy; all else is left as it is."""
    return {"min_loss": FAMO[landscape.name], "gamma": 0.0} if method == "famo" else {}


def _plain(results: Results) -> dict[str, Any]:
    """Without the paths."""
    return {
        name: {
            method: [{key: value for key, value in asdict(found).items() if key != "path"} for found in descents]
            for method, descents in of_methods.items()
        }
        for name, of_methods in results.items()
    }


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench landscapes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--methods", nargs="+", help=f"on all landscapes (default {' '.join(METHODS)})")
    parser.add_argument("--steps", type=positive, help="take no more (default: what the papers take, or half of it)")
    parser.add_argument("--plot", type=Path, help="draw the ways down into this PNG, and into others beside it")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _print(landscape: Landscape, of_methods: dict[str, list[Descent]]) -> None:
    title = f"{landscape.name}: where each method ends, thousands of steps, + at {landscape.goal}"
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for start in landscape.starts:
        table.add_column(f"from {_shown(start)}", justify="right")
    table.add_column("arrived", justify="right")
    for method, descents in of_methods.items():
        cells = [f"{_shown(d.end, 2)} {d.steps // 1000:,}k {'+' if d.has_arrived else '-'}" for d in descents]
        table.add_row(method, *cells, f"{sum(d.has_arrived for d in descents)} of {len(descents)}")
    Console(width=150).print(table)


def _shown(point: Point, digits: int = 1) -> str:
    return "(" + ", ".join(f"{round(value, digits) + 0.0:.{digits}f}" for value in point) + ")"

"""`ava bench loop`: what a training loop costs over the bare one, beside Lightning's and Hugging Face's.

    ava bench loop                         both models, all loops that are installed
    ava bench loop --model digits --rounds 40 --json loop.json
    ava bench loop --memory                peak memory of each loop, in processes of their own, and its growth

Time is processor time per step, each loop's turn beside the bare loop's of the same round; the ratio is the median
over rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ava.bench import machine, memory
from ava.bench.loops import LOOPS, OWN, is_installed, loop_named
from ava.bench.turns import Cost, Gate, measure
from ava.bench.workloads import WORKLOADS, Workload
from ava.data.loader import Position


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="ava bench loop", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=sorted(WORKLOADS), action="append", help="only this model (repeatable)")
    parser.add_argument("--rounds", type=int, default=25, help="turns of each loop that count (default 25)")
    parser.add_argument("--loops", nargs="+", choices=LOOPS, default=LOOPS, help="which loops (default all)")
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch's own)")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args(argv)
    names = [name for name in arguments.loops if is_installed(name)]
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    workloads = [WORKLOADS[name] for name in arguments.model or WORKLOADS]
    if arguments.memory:
        rows = [row for w in arguments.model or WORKLOADS for row in memory.measure(w, names)]
        _print(memory.COLUMNS, rows)
    else:
        rows = [row for workload in workloads for row in compare(workload, names, arguments.rounds)]
        _print(COLUMNS, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine.describe(), "rows": rows}, indent=2), encoding="utf-8")
    return 0


COLUMNS = {
    "model": "model", "loop": "loop", "cpu_ms": "CPU ms/step", "wall_ms": "wall ms/step", "ratio": "CPU / bare",
    "wall_ratio": "wall / bare", "steps": "steps",
}  # fmt: skip


def compare(workload: Workload, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """One row a loop; every loop trains the same model on the same batches, in turns."""
    loops: dict[str, Callable[[Gate[Any]], None]] = {}
    gates: dict[str, Gate[Any]] = {}
    for name in names:
        task, model, loader = workload.build()
        windows = loader.windows(Position())
        gates[name] = Gate(windows if name in OWN else (w.batches[0] for w in windows), workload.steps)
        loops[name] = loop_named(name, workload, task, model)
    costs = measure(loops, gates, rounds)
    return [_row(workload, name, cost, costs["bare"], rounds) for name, cost in costs.items()]


def _row(workload: Workload, name: str, cost: Cost, base: Cost, rounds: int) -> dict[str, Any]:
    def middle(values: list[float]) -> float:
        return sorted(values)[len(values) // 2] * 1e3

    return {
        "model": workload.name, "loop": name, "cpu_ms": round(middle(cost.cpu), 3),
        "wall_ms": round(middle(cost.wall), 3), "ratio": round(cost.ratio(base), 4),
        "wall_ratio": round(cost.wall_ratio(base), 4), "steps": rounds * workload.steps,
    }  # fmt: skip


def _print(columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    console = Console()
    table = Table(title=machine.describe(), title_justify="left")
    for heading in columns.values():
        table.add_column(heading, no_wrap=True, justify="left" if heading in ("model", "loop") else "right")
    for row in rows:
        table.add_row(*(str(row[key]) for key in columns))
    console.print(table)

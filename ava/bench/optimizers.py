"""`ava bench optimizers`: what a step of each optimizer costs over torch's fused AdamW, beside others'.

    ava bench optimizers                        every rule, both parameter sets, all libraries that are installed
    ava bench optimizers --only lion adamw-int8 --sets gpt --json optimizers.json
    ava bench optimizers --options --sets gpt   AdamW and Lion with each option over the same without it
    ava bench optimizers --memory               bytes of gradients, with and without `fused_backward`

A ratio is the median over rounds of an arm's time per step over the base's of the same round. The target is on
processor time; the best peer is the smallest such ratio among the others of the same rule.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from ava.bench import gradients, machine, optimizer_options
from ava.bench.parameter_sets import SETS, ParameterSet
from ava.bench.rules import RULES, choose_arms
from ava.bench.steps import Measured, compare
from ava.bench.tables import console, show
from ava.errors import InputError, nearest

COLUMNS = {
    "set": "set", "rule": "rule", "library": "library", "ratio": "CPU / fused", "target": "target",
    "best_peer": "best peer", "wall_ratio": "wall / fused", "cpu_ms": "CPU ms", "cpu_min_ms": "min",
    "wall_ms": "wall ms", "wall_min_ms": "min ", "state_bytes": "state B/param", "target_bytes": "target B",
}  # fmt: skip
WORDS = ("set", "rule", "library", "option", "model", "arm")


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked.

    Raises:
        InputError: `--only` names a rule that does not exist.
    """
    arguments = _parse(argv)
    rules = _known_rules(arguments.only)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.memory:
        columns = gradients.COLUMNS
        rows, missing = gradients.measure(["mlp", "gpt"], arguments.only or ["adamw"])
    elif arguments.options:
        columns, rows, missing = optimizer_options.COLUMNS, [], []
        for name in arguments.sets:
            chosen = arguments.only or list(optimizer_options.OPTIMIZERS)
            measured, refused = optimizer_options.measure(chosen, SETS[name], arguments.rounds)
            rows, missing = rows + measured, missing + refused
    else:
        arms, missing = choose_arms(rules, arguments.peers)
        rows, columns = [], COLUMNS
        for name in arguments.sets:
            rows += _rows(SETS[name], compare(arms, SETS[name], arguments.rounds, missing.append))
    _print(columns, rows, missing)
    if arguments.json:
        found = {"machine": machine.describe(), "rows": rows, "missing": missing}
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench optimizers", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=["gpt", "small"], help="parameter sets (default gpt small)")
    add("--rounds", type=_positive, default=15, help="turns of each optimizer that count (default 15)")
    add("--threads", type=_positive, default=None, help="torch threads (default: torch's own)")
    add("--only", nargs="+", metavar="NAME", help="only these rules: " + ", ".join(RULES))
    add("--no-peers", dest="peers", action="store_false", help="leave out everybody else's, save the base")
    add("--memory", action="store_true", help="measure the memory of gradients instead of time")
    add("--options", action="store_true", help="measure the shared options, each over the plain optimizer")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    """A whole number above 0."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def _known_rules(names: list[str] | None) -> list[str]:
    """The names, all if there are none, each a rule."""
    for name in names or ():
        if name not in RULES:
            problem = f"no measured optimizer is called {name!r}; there are: {', '.join(RULES)}."
            raise InputError(problem, key="--only", value=name, hint=nearest(name, RULES))
    return names or list(RULES)


def _rows(parameter_set: ParameterSet, measured: list[Measured]) -> list[dict[str, Any]]:
    """One row an arm; Ava's also say what they are to reach."""
    rows = [_row(parameter_set, result) for result in measured]
    for row in rows:
        if row["library"] == "ava":
            rule = RULES[row["rule"]]
            peers = [r["ratio"] for r in rows if r["rule"] == row["rule"] and r["library"] != "ava"]
            row["target"] = rule.target_on(parameter_set.name)
            row["target_bytes"] = rule.target_bytes if parameter_set.name == "gpt" else None
            row["best_peer"] = min(peers, default=None)
    return rows


def _row(parameter_set: ParameterSet, result: Measured) -> dict[str, Any]:
    cost = result.cost
    return {
        "set": parameter_set.name, "rule": result.arm.rule, "library": result.arm.library,
        "ratio": round(cost.ratio(result.base), 3), "wall_ratio": round(cost.wall_ratio(result.base), 3),
        "cpu_ms": round(statistics.median(cost.cpu) * 1e3, 3), "cpu_min_ms": round(min(cost.cpu) * 1e3, 3),
        "wall_ms": round(statistics.median(cost.wall) * 1e3, 3), "wall_min_ms": round(min(cost.wall) * 1e3, 3),
        "state_bytes": round(result.state, 3), "rounds": len(cost.cpu),
        "target": None, "target_bytes": None, "best_peer": None,
    }  # fmt: skip


def _print(columns: dict[str, str], rows: list[dict[str, Any]], missing: list[str]) -> None:
    show(machine.describe(), columns, WORDS, rows)
    for line in missing:
        console().print(f"Not measured: {line}", markup=False)

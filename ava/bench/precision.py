"""`ava bench precision`: what each precision costs and keeps, and Ava's bf16 loop beside the one by hand.

    ava bench precision                    both models, every precision that this processor can
    ava bench precision --model gpt --fp8 --rounds 20 --json precision.json

Time is processor time per step on one thread, each arm's turn beside fp32's of the same round; ratios are medians over
rounds. Memory is by kind, in MB: what tensors take, not what the process holds. The loss is that of a short training.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ava.bench import machine, tables
from ava.bench.precision_arms import ARMS, BASE, BY_HAND, FP8, Arm, Outcome, by_hand, in_our_loop, train
from ava.bench.trainings import positive
from ava.bench.turns import Cost, Gate, measure
from ava.bench.workloads import WORKLOADS
from ava.data.loader import Position
from ava.data.source import TokenSpec
from ava.training.state import Run

STEPS = {"digits": 100, "gpt": 20}
"""Of the training that is not timed."""
COLUMNS = {
    "model": "model", "arm": "precision", "cpu_ms": "CPU ms/step", "ratio": "CPU / fp32", "per_second": "per s",
    "unit": "of", "weights": "weights MB", "gradients": "gradients", "state": "state", "activations": "activations",
    "mfu": "MFU", "loss": "loss", "steps": "after",
}  # fmt: skip
HAND_COLUMNS = {
    "model": "model", "arm": "loop", "cpu_ms": "CPU ms/step", "ratio": "CPU / by hand", "wall_ratio": "wall / by hand",
}  # fmt: skip
_WORDS = ("model", "arm", "unit")


def main(argv: list[str] | None = None) -> int:
    """Measure, print the tables, and write JSON where asked."""
    parser = argparse.ArgumentParser(prog="ava bench precision", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", choices=sorted(WORKLOADS), action="append", help="only this model (repeatable)")
    parser.add_argument("--rounds", type=positive, default=15, help="turns of each arm that count (default 15)")
    parser.add_argument("--steps", type=positive, default=None, help="steps of the training whose loss is told")
    parser.add_argument("--fp8", action="store_true", help="the recipes of fp8 as well, emulated; slow")
    parser.add_argument("--threads", type=positive, default=1, help="torch threads (default 1)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    hand: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    for name in arguments.model or WORKLOADS:
        mine, beside, missing = compare(
            name, [*ARMS, *(FP8 if arguments.fp8 else ())], arguments.rounds, arguments.steps or STEPS[name]
        )
        rows, hand, refused = rows + mine, hand + beside, refused | missing
    tables.show(machine.describe(), COLUMNS, _WORDS, rows)
    tables.show("bf16 autocast, in turns in one process", HAND_COLUMNS, _WORDS, hand)
    for what, reason in refused.items():
        print(f"not measured: {what}: {reason}")
    if arguments.json:
        found = {"machine": machine.describe(), "rows": rows, "by_hand": hand, "not_measured": refused}
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def compare(
    name: str, arms: list[Arm], rounds: int, steps: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, str]]:
    """Every arm on one workload.

    Returns:
        A row an arm; the rows of bf16 in both loops; and why an arm is missing, by its name.
    """
    outcomes: dict[str, Outcome] = {}
    runs: dict[str, Run] = {}
    refused: dict[str, str] = {}
    for arm in arms:
        try:
            outcomes[arm.name] = train(arm.build(name), steps)
            runs[arm.name] = arm.build(name)
        except Exception as error:  # one that cannot run here is no reason to lose the others' figures
            refused[f"{WORKLOADS[name].name}, {arm.name}"] = " ".join(str(error).split())
    spec = runs[BASE].task.data.spec
    unit, per_sample = ("tokens", spec.context) if isinstance(spec, TokenSpec) else ("samples", 1)
    costs = _measure(name, runs, rounds)
    rows = [
        _row(WORKLOADS[name].name, arm, costs[arm], costs[BASE], outcomes[arm], steps)
        | {"unit": unit, "per_second": round(per_sample * WORKLOADS[name].batch_size / _middle(costs[arm].wall))}
        for arm in runs
    ]
    return rows, _beside_hand(WORKLOADS[name].name, costs), refused


def _measure(name: str, runs: dict[str, Run], rounds: int) -> dict[str, Cost]:
    """All arms and the loop by hand, in turns, on the same batches."""
    workload = WORKLOADS[name]
    loops: dict[str, Callable[[Gate[Any]], None]] = {}
    gates: dict[str, Gate[Any]] = {}
    for arm, run in runs.items():
        gates[arm] = Gate(run.loader.windows(Position()), workload.steps)
        loops[arm] = functools.partial(in_our_loop, workload, run)
    _, model, loader = workload.build()
    gates[BY_HAND] = Gate(workload.batches(loader), workload.steps)
    loops[BY_HAND] = functools.partial(by_hand, workload, model)
    return measure(loops, gates, rounds)


def _row(model: str, arm: str, cost: Cost, base: Cost, outcome: Outcome, steps: int) -> dict[str, Any]:
    memory: Any = outcome.facts["memory_by_kind"]
    kinds = ("weights", "gradients", "state", "activations")
    return {
        "model": model, "arm": arm, "cpu_ms": round(_middle(cost.cpu) * 1e3, 3), "ratio": round(cost.ratio(base), 3),
        "mfu": outcome.facts["mfu"], "flops_per_sample": outcome.facts["flops_per_sample"],
        "loss": round(outcome.loss, 4), "steps": steps,
    } | {kind: None if memory[kind] is None else round(memory[kind] / 1e6, 2) for kind in kinds}  # fmt: skip


def _beside_hand(model: str, costs: dict[str, Cost]) -> list[dict[str, Any]]:
    base = costs[BY_HAND]
    return [
        {
            "model": model, "arm": arm, "cpu_ms": round(_middle(costs[arm].cpu) * 1e3, 3),
            "ratio": round(costs[arm].ratio(base), 3), "wall_ratio": round(costs[arm].wall_ratio(base), 3),
        }
        for arm in (BY_HAND, "bf16") if arm in costs
    ]  # fmt: skip


def _middle(values: list[float]) -> float:
    return statistics.median(values)

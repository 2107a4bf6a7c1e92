"""`ava bench health`: what measuring, guarding and clipping gradients costs over torch's `clip_grad_norm_`.

    ava bench health                            both parameter sets, every arm
    ava bench health --sets gpt --rounds 40 --json health.json

A ratio is the median over rounds of an arm's processor time per step over its base's of the same round, on one thread.
Targets are of the usual step, whose norm is below the threshold: our clip then touches no memory, where torch's always
multiplies. The rows that say "clipping" have a threshold that every step is above. What is folded into an optimizer
is measured over the bare step of the same optimizer.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
from itertools import chain
from pathlib import Path
from typing import Any

from ava.bench.health_arms import ARMS, Arm
from ava.bench.measured import report
from ava.bench.parameter_sets import SETS, ParameterSet
from ava.bench.trainings import positive
from ava.bench.turns import seconds_per_call

COLUMNS = {
    "set": "set", "arm": "arm", "base": "over", "ratio": "CPU ratio", "target": "target", "reached": "reached",
    "cpu_ms": "CPU ms", "cpu_min_ms": "min",
}  # fmt: skip
WORDS = ("set", "arm", "base", "reached")
WARM_UP = 2
SHORTEST = 0.02
"""A turn takes at least so many seconds of processor time."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    each = (measure(SETS[name], arguments.rounds) for name in arguments.sets)
    return report(chain.from_iterable(each), COLUMNS, WORDS, arguments.json)


def measure(parameter_set: ParameterSet, rounds: int) -> list[dict[str, Any]]:
    """One row an arm; arms of one base at a time, so that few copies of the parameters are in memory.

    Args:
        parameter_set: what each arm gets its own copy of.
        rounds: turns of each arm that count.
    """
    rows: list[dict[str, Any]] = []
    for base in dict.fromkeys(arm.base for arm in ARMS):
        arms = [arm for arm in ARMS if arm.base == base]
        costs = take_turns(arms, parameter_set, rounds)
        rows += [_row(arm, parameter_set.name, costs[arm.name], costs[base]) for arm in arms]
        gc.collect()
    return rows


def take_turns(arms: list[Arm], parameter_set: ParameterSet, rounds: int) -> dict[str, list[float]]:
    """Processor seconds per step of each arm, one value a round; the first rounds warm up and do not count."""
    made = {arm.name: arm.make([parameter for _, parameter in parameter_set.build()]) for arm in arms}
    costs: dict[str, list[float]] = {arm.name: [] for arm in arms}
    for number in range(rounds + WARM_UP):
        # In a new order each round: who follows whom decides whose data is still in the caches.
        for arm in random.Random(number).sample(arms, len(arms)):
            cost = seconds_per_call(made[arm.name], SHORTEST) / arm.num_steps
            if number >= WARM_UP:
                costs[arm.name].append(cost)
    return costs


def _row(arm: Arm, name: str, cost: list[float], base: list[float]) -> dict[str, Any]:
    ratio = statistics.median(mine / theirs for mine, theirs in zip(cost, base, strict=True))
    target = arm.targets.get(name)
    return {
        "set": name, "arm": arm.name, "base": arm.base, "ratio": round(ratio, 3), "target": target,
        "reached": None if target is None else "yes" if ratio <= target else "no",
        "cpu_ms": round(statistics.median(cost) * 1e3, 3), "cpu_min_ms": round(min(cost) * 1e3, 3), "rounds": len(cost),
    }  # fmt: skip


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench health", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--sets", nargs="+", choices=SETS, default=["gpt", "small"], help="parameter sets (default gpt small)")
    add("--rounds", type=positive, default=15, help="turns of each arm that count (default 15)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)

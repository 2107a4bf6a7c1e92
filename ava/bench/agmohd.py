"""`ava bench agmohd`: what AGMOHD's whole step costs over torch's fused AdamW: the norm, the judgement and the update.

    ava bench agmohd                            a GPT of 1M parameters and one of 33M, every arm
    ava bench agmohd --sets gpt --rounds 40 --json agmohd.json

A ratio is the median over rounds of an arm's processor time per step over that of torch's fused AdamW in the same
round, on one thread; gradients stay as they are. "norm told" is what a loop costs that has measured the gradients'
norm already, as `ava train` does for every optimizer. "clip" is torch's `clip_grad_norm_` with a bound that is never
reached.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from ava.bench.measured import report
from ava.bench.parameter_sets import GPT_1M, SETS, ParameterSet
from ava.bench.steps import held_bytes
from ava.bench.trainings import positive
from ava.bench.turns import seconds_per_call
from ava.optimization import get_optimizer

COLUMNS = {
    "set": "set", "arm": "arm", "ratio": "over AdamW", "clipped": "over AdamW + clip", "ours": "over Ava's AdamW",
    "target": "target", "reached": "reached", "cpu_ms": "CPU ms", "bytes": "state bytes",
}  # fmt: skip
WORDS = ("set", "arm", "reached")
WARM_UP = 2
SHORTEST = 0.05
"""A turn takes at least so many seconds of processor time."""
SEVERAL = {"gpt1m": GPT_1M, **SETS}
TARGET = 1.05
BASE, CLIPPED, OURS = "AdamW (torch, fused)", "AdamW (torch, fused), clip", "adamw"

Parameters = list[nn.Parameter]


@dataclass(frozen=True)
class Arm:
    """What is timed.

    Attributes:
        name: as the table calls it.
        build: makes the optimizer.
        before: what a loop does before each step.
        has_target: whether it is to cost 5 % over AdamW at most.
    """

    name: str
    build: Callable[[Parameters], torch.optim.Optimizer]
    before: Callable[[torch.optim.Optimizer, Parameters], Any] | None = None
    has_target: bool = False

    def step(self, optimizer: torch.optim.Optimizer, parameters: Parameters) -> Callable[[], Any]:
        """One step of a loop."""
        if self.before is None:
            return optimizer.step
        before = self.before

        def both() -> None:
            before(optimizer, parameters)
            optimizer.step()

        return both


def _tell(optimizer: Any, parameters: Parameters) -> None:
    optimizer.observe(1.0, gradient_norm=1.0, reduced=True)


def _ours(name: str, **options: Any) -> Callable[[Parameters], torch.optim.Optimizer]:
    return lambda parameters: get_optimizer(name)(parameters, **options)


def _fused(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, fused=True)


ARMS = [
    Arm(BASE, _fused),
    Arm(CLIPPED, _fused, lambda optimizer, parameters: clip_grad_norm_(parameters, 1e9)),
    Arm(OURS, _ours("adamw")),
    Arm("agmohd", _ours("agmohd"), has_target=True),
    Arm("agmohd, norm told", _ours("agmohd"), _tell, has_target=True),
    *(Arm(f"agmohd, {state}", _ours("agmohd", state=state), has_target=True) for state in ("bf16", "int8", "factored")),
]


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    each = (measure(SEVERAL[name], arguments.rounds) for name in arguments.sets)
    return report(chain.from_iterable(each), COLUMNS, WORDS, arguments.json)


def measure(parameter_set: ParameterSet, rounds: int) -> list[dict[str, Any]]:
    """One row an arm.

    Args:
        parameter_set: what each arm gets its own copy of.
        rounds: turns of each arm that count.
    """
    optimizers, steps = {}, {}
    for arm in ARMS:
        parameters = [parameter for _, parameter in parameter_set.build()]
        optimizers[arm.name] = arm.build(parameters)
        steps[arm.name] = arm.step(optimizers[arm.name], parameters)
    costs = take_turns(steps, rounds)
    held = {name: held_bytes(optimizer) for name, optimizer in optimizers.items()}
    del optimizers, steps
    gc.collect()
    return [_row(arm, parameter_set.name, costs, held[arm.name]) for arm in ARMS]


def take_turns(steps: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds per step of each arm, one value a round; the first rounds warm up and do not count."""
    costs: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + WARM_UP):
        # In a new order each round: who follows whom decides whose data is still in the caches.
        for name in random.Random(number).sample(list(steps), len(steps)):
            cost = seconds_per_call(steps[name], SHORTEST)
            if number >= WARM_UP:
                costs[name].append(cost)
    return costs


def _row(arm: Arm, name: str, costs: dict[str, list[float]], held: float) -> dict[str, Any]:
    def over(base: str) -> float:
        pairs = zip(costs[arm.name], costs[base], strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)

    ratio, target = over(BASE), TARGET if arm.has_target else None
    return {
        "set": name, "arm": arm.name, "ratio": round(ratio, 3), "clipped": round(over(CLIPPED), 3),
        "ours": round(over(OURS), 3), "target": target,
        "reached": None if target is None else "yes" if ratio <= target else "no",
        "cpu_ms": round(statistics.median(costs[arm.name]) * 1e3, 3), "bytes": round(held, 3),
        "rounds": len(costs[BASE]),
    }  # fmt: skip


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench agmohd", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--sets", nargs="+", choices=SEVERAL, default=["gpt1m", "gpt"], help="parameter sets (default gpt1m gpt)")
    add("--rounds", type=positive, default=15, help="turns of each arm that count (default 15)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)

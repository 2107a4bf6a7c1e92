"""What a guard costs: processor time of whole training steps, arms in turns within one process."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ava.bench.stability_plans import Asked, rate
from ava.bench.stability_trainings import Scenario
from ava.bench.turns import Cost, Gate, measure
from ava.config.parts import build_run
from ava.data.loader import Position, TrainingLoader, Window
from ava.distributed.world import World, join
from ava.training.loop import Trainer
from ava.training.state import Run

STEPS = 10
"""In a turn."""
ENDLESS = 10**9


def cost_rows(asked: Asked, rounds: int) -> list[dict[str, Any]]:
    """One row for each problem, optimizer and guard, beside the first optimizer with clip.

    Args:
        asked: problems, optimizers and guards.
        rounds: turns that count.
    """
    rows = []
    for problem in asked.problems:
        arms = [("adamw", "clip")]
        arms += [(o, g) for o in asked.optimizers for g in dict.fromkeys(["clip", *asked.guards]) if g != "none"]
        names = {f"{optimizer} / {guard}": (optimizer, guard) for optimizer, guard in arms}
        costs = _measured(problem, names, rounds)
        base = costs["adamw / clip"]
        rows += [_row(problem, *names[name], cost, base) for name, cost in costs.items()]
    return rows


def _row(problem: str, optimizer: str, guard: str, cost: Cost, base: Cost) -> dict[str, Any]:
    ratios = sorted(mine / theirs for mine, theirs in zip(cost.cpu, base.cpu, strict=True))
    quarter = len(ratios) // 4
    return {
        "problem": problem, "optimizer": optimizer, "guard": guard, "ms": 1e3 * statistics.median(cost.cpu),
        "ratio": cost.ratio(base), "spread": (ratios[quarter], ratios[-1 - quarter]),
    }  # fmt: skip


def _measured(problem: str, names: dict[str, tuple[str, str]], rounds: int) -> dict[str, Cost]:
    gates: dict[str, Gate[Any]] = {}
    loops: dict[str, Callable[[Gate[Any]], None]] = {}
    with ExitStack() as stack:
        world = stack.enter_context(join("cpu"))
        for name, (optimizer, guard) in names.items():
            scenario = Scenario(problem, optimizer, rate(problem, optimizer), guard, seed=0)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            gates[name], loops[name] = _loop(scenario, world, folder)
        return measure(loops, gates, rounds)


def _loop(scenario: Scenario, world: World, folder: Path) -> tuple[Gate[Any], Callable[[Gate[Any]], None]]:
    """The training's gate, and what trains on it until it closes."""
    run, plan = build_run(scenario.compose(), world)
    gate: Gate[Any] = Gate(run.loader.windows(run.position), STEPS)
    run.loader = _metered(run, gate)
    plan = dataclasses.replace(plan, total_steps=ENDLESS, eval_every=0, checkpoint_every=0, keep_best=False)
    trainer = Trainer(run, plan, folder, [])
    return gate, lambda _: _ignored(trainer)


def _ignored(trainer: Trainer) -> None:
    trainer.train()


class _Metered(TrainingLoader):
    """A loader that gives what the gate lets through."""

    gate: Gate[Window]

    def windows(self, start: Position) -> Iterator[Window]:
        return iter(self.gate)


def _metered(run: Run, gate: Gate[Window]) -> TrainingLoader:
    loader = _Metered(run.loader.split, batch_size=run.loader.batch_size, seed=run.loader.seed)
    loader.gate = gate
    return loader

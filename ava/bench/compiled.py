"""`ava bench compiled`: what `trainer.compile=true` gains over plain steps, and what it costs to start.

    ava bench compiled                           forward, backward and update of each model, on one thread
    ava bench compiled --model gpt --json compiled.json
    ava bench compiled --optimizers              the update alone: our kernels, torch's fused one, and compiled ones

A ratio is the median over rounds of an arm's processor time per step over its base's of the same round. Compile time
is elapsed time at the start of a run; torch keeps what it made on disk, so that the next start takes less.
"""

from __future__ import annotations

import argparse
import functools
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ava.bench import machine
from ava.bench.arms import ava_loop
from ava.bench.tables import show
from ava.bench.trainings import positive
from ava.bench.turns import seconds_per_call
from ava.bench.workloads import WORKLOADS, Workload
from ava.data.loader import Batch, TrainingLoader
from ava.optimization import OptimizerFactory
from ava.training.compilation import Compilation
from ava.training.compiling import LossNetwork, compile_losses
from ava.training.state import Run

Step = Callable[[], Any]
STEPS = {"model": "model", "arm": "arm", "ratio": "CPU / eager", "cpu_ms": "CPU ms/step", "compile_s": "compile s",
         "graphs": "graphs", "recompiles": "recompiles"}  # fmt: skip
UPDATES = {"model": "model", "arm": "arm", "ratio": "CPU / fused", "cpu_ms": "CPU ms/update", "compile_s": "compile s"}
SHORTEST = 0.1
"""A turn takes at least so many seconds of processor time."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measure = compare_updates if arguments.optimizers else compare_steps
    try:
        rows = [row for name in arguments.model or WORKLOADS for row in measure(WORKLOADS[name], arguments.rounds)]
        described = machine.describe()
    finally:
        torch.set_num_threads(threads)
    show(described, UPDATES if arguments.optimizers else STEPS, ("model", "arm"), rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": described, "rows": rows}, indent=2), encoding="utf-8")
    return 0


def compare_steps(workload: Workload, rounds: int) -> list[dict[str, Any]]:
    """Plain and compiled steps in turns; then every size of an epoch, to see whether anything is compiled again.

    Args:
        workload: model, data and batch size.
        rounds: turns that count.
    """
    plain, made = _build(workload), _build(workload)
    network, compilation = compile_losses(made)
    batch = plain.loader.split.fetch(torch.arange(workload.batch_size).numpy(), 0)
    steps: dict[str, Step] = {
        "eager": functools.partial(_step, LossNetwork(plain.task, plain.model), plain, batch),
        "compiled": functools.partial(_step, network, made, batch),
    }
    costs = take_turns(steps, rounds)
    for size in made.loader.batch_sizes():
        _step(network, made, {name: tensor[:size] for name, tensor in batch.items()})
    return [_step_row(workload, arm, costs, compilation if arm == "compiled" else None) for arm in steps]


def compare_updates(workload: Workload, rounds: int) -> list[dict[str, Any]]:
    """AdamW's update of the workload's parameters: torch's fused kernel, torch's compiled one, and ours.

    Args:
        workload: whose model.
        rounds: turns that count.
    """
    steps: dict[str, Step] = {}
    seconds: dict[str, float | None] = {}
    for arm, build in _UPDATES.items():
        model = workload.build()[1]
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)
        steps[arm] = build(model)
        began = time.perf_counter()
        steps[arm]()
        seconds[arm] = round(time.perf_counter() - began, 1) if "compiled" in arm else None
    costs = take_turns(steps, rounds)
    return [_row(workload, arm, costs, "torch fused") | {"compile_s": seconds[arm]} for arm in steps]


def take_turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Processor seconds per step of each arm, one value a round; the first round warms up and does not count."""
    costs: dict[str, list[float]] = {arm: [] for arm in steps}
    for number in range(rounds + 1):
        # In a new order each round: who follows whom decides whose data is still in the caches.
        for arm in random.Random(number).sample(list(steps), len(steps)):
            cost = seconds_per_call(steps[arm], SHORTEST)
            if number:
                costs[arm].append(cost)
    return costs


def _step(network: torch.nn.Module, run: Run, batch: Batch) -> None:
    run.optimizer.zero_grad(set_to_none=True)
    functools.reduce(torch.add, network(batch).values()).backward()
    run.optimizer.step()


def _build(workload: Workload) -> Run:
    task, model, loader = workload.build()
    assert isinstance(loader, TrainingLoader)
    return ava_loop.build(workload, task, model, loader)


def _fused(model: torch.nn.Module) -> Step:
    return torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True).step


def _compiled(model: torch.nn.Module) -> Step:
    """The recipe of torch for a compiled optimizer: a rate that is a tensor, so that a new one compiles nothing."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-4))
    return torch.compile(optimizer.step)


def _ours(model: torch.nn.Module, engine: str) -> Step:
    return OptimizerFactory.create("adamw", model.parameters(), lr=1e-4, engine=engine).step


_UPDATES: dict[str, Callable[[torch.nn.Module], Step]] = {
    "torch fused": _fused,
    "torch compiled": _compiled,
    "ava": functools.partial(_ours, engine="auto"),
    "ava reference": functools.partial(_ours, engine="reference"),
}


def _step_row(
    workload: Workload, arm: str, costs: dict[str, list[float]], compilation: Compilation | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"compile_s": None, "graphs": None, "recompiles": None}
    if compilation is not None:
        found = {
            "compile_s": round(compilation.seconds, 1), "graphs": compilation.graphs,
            "recompiles": compilation.recompiles,
        }  # fmt: skip
    return _row(workload, arm, costs, "eager") | found


def _row(workload: Workload, arm: str, costs: dict[str, list[float]], base: str) -> dict[str, Any]:
    ratio = statistics.median(mine / theirs for mine, theirs in zip(costs[arm], costs[base], strict=True))
    middle = statistics.median(costs[arm]) * 1e3
    return {"model": workload.name, "arm": arm, "ratio": round(ratio, 3), "cpu_ms": round(middle, 3)}


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench compiled", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--model", choices=sorted(WORKLOADS), action="append", help="only this model (repeatable)")
    add("--optimizers", action="store_true", help="measure the update alone")
    add("--rounds", type=positive, default=11, help="turns of each arm that count (default 11)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)

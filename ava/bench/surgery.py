"""`ava bench surgery`: what reconciling gradients costs over the plain sum of the losses, and what the gate misses.

    ava bench surgery                                every method and way, 2, 4 and 8 objectives
    ava bench surgery --tasks 4 --methods pcgrad mgda --rounds 15 --json surgery.json
    ava bench surgery --trunk even                   a trunk whose last layer is a quarter of it
    ava bench surgery --gate                         what AdaptiveGradientSurgeon sees and does, beside the exact method

A ratio is the median over rounds of the processor time of forward and backward over the plain sum's just before,
all ways alternating within this process. A turn takes whole periods, so that the steps in which `every=10` or
`adaptive` do more count. About a fifth of the pairs are in conflict, unless the way says otherwise. Memory is the
highest sum of what torch's allocator hands out during a step, over the plain sum's, in gradients of the trunk.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import torch

from ava.bench import machine, surgery_gate
from ava.bench.surgery_arms import BASE, TARGETS, Arm, Step, arms
from ava.bench.surgery_scenes import TRUNKS, Scene, fan
from ava.bench.tables import show
from ava.bench.trainings import positive
from ava.bench.turns import Cost
from ava.errors import InputError, nearest
from ava.optimization.catalogue import list_surgery

COLUMNS = {
    "tasks": "T", "method": "method", "way": "way", "library": "library", "ratio": "CPU / sum", "target": "target",
    "overhead": "more than sum", "wall_ratio": "wall / sum", "memory": "memory", "cpu_ms": "CPU ms",
}  # fmt: skip
WORDS = ("method", "way", "library", "problem", "weights")
WARM_UP, SHORTEST = 1, 4
"""Rounds that do not count; steps that a turn takes at least."""


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked.

    Raises:
        InputError: `--methods` names one that does not exist.
    """
    arguments = _parse(argv)
    known = list_surgery()
    for name in arguments.methods or ():
        if name not in known:
            problem = f"no surgery method is called {name!r}; there are: {', '.join(known)}."
            raise InputError(problem, key="--methods", value=name, hint=nearest(name, known))
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    if arguments.gate:
        rows = surgery_gate.measure(arguments.steps, arguments.seeds)
        show(machine.describe(), surgery_gate.COLUMNS, WORDS, rows)
    for tasks in [] if arguments.gate else arguments.tasks:
        rows += measure(list(arms(arguments.methods, arguments.peers)), tasks, arguments.trunk, arguments.rounds)
        show(machine.describe(), COLUMNS, WORDS, [row for row in rows if row["tasks"] == tasks])
    if arguments.json:
        found = {"machine": machine.describe(), "trunk": arguments.trunk, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def measure(chosen: list[Arm], tasks: int, trunk: str, rounds: int) -> list[dict[str, Any]]:
    """One row an arm.

    Args:
        chosen: the arms, the base first.
        tasks: T.
        trunk: of `TRUNKS`.
        rounds: that count.
    """
    scenes = {in_conflict: fan(tasks, in_conflict, trunk) for in_conflict in (False, True)}
    steps = {arm: arm.build(scenes[arm.in_conflict]) for arm in chosen}
    costs, beside = ({arm: Cost([], []) for arm in chosen} for _ in range(2))
    for number in range(rounds + WARM_UP):
        for arm in random.Random(number).sample(chosen, len(chosen)):
            # Each beside a turn of the base of its own: one that was disturbed would shift all ratios alike.
            for turned, cost in ((BASE, beside[arm]), (arm, costs[arm])):
                wall, cpu = _turn(steps[turned], -(-SHORTEST // turned.period) * turned.period)
                if number >= WARM_UP:
                    cost.wall.append(wall)
                    cost.cpu.append(cpu)
    beside[BASE] = costs[BASE]
    peaks = {arm: peak(steps[arm], scenes[arm.in_conflict]) for arm in chosen}
    whole = sum(p.numel() * p.element_size() for p in scenes[True].trunk.parameters())
    return [_row(arm, tasks, costs[arm], beside[arm], (peaks[arm] - peaks[BASE]) / whole) for arm in chosen]


def peak(step: Step, scene: Scene) -> int:
    """The highest sum of bytes that torch's allocator handed out during one step and had not got back."""
    scene.clear()
    gc.collect()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it announces every start and stop otherwise
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench surgery", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--tasks", nargs="+", type=_at_least_two, default=[2, 4, 8], help="numbers of objectives (default 2 4 8)")
    add("--methods", nargs="+", metavar="NAME", help="only these methods on parameters and features (default all)")
    add("--trunk", choices=TRUNKS, default="pooled", help="the shared part (default pooled)")
    add("--rounds", type=positive, default=9, help="turns of each way that count (default 9)")
    add("--threads", type=positive, default=1, help="torch threads (default 1)")
    add("--no-peers", dest="peers", action="store_false", help="leave out everybody else's, save the plain sum")
    add("--gate", action="store_true", help="measure what the gate catches and how near to exact its weights are")
    add("--steps", type=positive, default=300, help="with --gate: steps of each training (default 300)")
    add("--seeds", type=positive, default=3, help="with --gate: trainings of each problem (default 3)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)


def _at_least_two(text: str) -> int:
    """A number of objectives."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text} objectives cannot be in conflict: at least 2")
    return int(text)


def _turn(step: Step, count: int) -> tuple[float, float]:
    """Wall and processor seconds per step."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def _row(arm: Arm, tasks: int, cost: Cost, base: Cost, memory: float) -> dict[str, Any]:
    ratio = cost.ratio(base)
    return {
        "tasks": tasks, "method": arm.method, "way": arm.way, "library": arm.library,
        "ratio": round(ratio, 3), "target": TARGETS.get(arm.way, {}).get(tasks),
        "overhead": f"{100 * (ratio - 1):+.0f} %", "wall_ratio": round(cost.wall_ratio(base), 3),
        "memory": round(memory, 2), "cpu_ms": round(sorted(cost.cpu)[len(cost.cpu) // 2] * 1e3, 1),
        "rounds": len(cost.cpu),
    }  # fmt: skip

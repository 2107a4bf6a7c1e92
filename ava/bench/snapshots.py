"""`ava bench snapshots`: what keeping sound states in memory costs a training, and comparing ranks.

    ava bench snapshots                                   all models
    ava bench snapshots --models mlp convnet --steps 600
    ava bench snapshots --cost 0.02 --json snapshots.json

Times are processor times on one thread. A snapshot's and a checksum's are medians of calls on their own; the share is
that of a real training: what all offers took, taken or not, over what the steps took. The snapshot of the beginning
is apart: a training pays for it once. Ranks are compared by checksum.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ava.bench.measured import report
from ava.bench.trainings import positive
from ava.config.compose import compose
from ava.config.parts import build_run
from ava.distributed.world import World
from ava.optimization.snapshot import Snapshot
from ava.training.recovery.checksum import checksum
from ava.training.recovery.snapshots import Snapshots, parts_of
from ava.training.state import Run
from ava.training.step import training_step

_GPT = ("task=stdlib_lm", "data.context=128", "trainer.batch_size=8", "model=gpt")
MODELS: dict[str, tuple[str, ...]] = {
    "mlp": ("model=mlp", "trainer.batch_size=32"),
    "convnet": ("model=convnet", "trainer.batch_size=32"),
    "gpt-0.25m": (*_GPT, "model.layers=2", "model.width=96", "model.heads=4"),
    "gpt-3m": (*_GPT, "model.preset=3m"),
}
STEPS = {"mlp": 600, "convnet": 400, "gpt-0.25m": 200, "gpt-3m": 60}
COLUMNS = {
    "model": "model", "parameters": "parameters", "mb": "MB each", "step_ms": "step ms", "walk_ms": "first ms",
    "take_ms": "again ms", "start_ms": "start ms", "interval": "every", "taken": "taken",
    "share": "share %", "reached": "reached", "checksum_ms": "checksum ms",
}  # fmt: skip
WORDS = ("model", "reached")
CALLS = 30


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    each = (measure(name, arguments.steps or STEPS[name], arguments.cost, arguments.with_) for name in arguments.models)
    return report(each, COLUMNS, WORDS, arguments.json)


def measure(model: str, num_steps: int, cost: float, overrides: list[str]) -> dict[str, Any]:
    """One row: a training with snapshots, then snapshots and checksums on their own.

    Args:
        model: one of `MODELS`.
        num_steps: length of the training.
        cost: the share of it that snapshots may take.
        overrides: of the configuration, besides the model's.
    """
    options = [*MODELS[model], f"trainer.max_steps={num_steps + WARM_UP}", *overrides]
    run, _ = build_run(compose(options), World(0, 1, torch.device("cpu")))
    steps, offers, start, snapshots = _train(run, num_steps, cost)
    kept = Snapshot(*parts_of(run), gradients=False)
    share = 100 * offers / steps
    return {
        "model": model, "parameters": sum(p.numel() for p in run.model.parameters()),
        "mb": round(kept.nbytes / 1e6, 2), "step_ms": round(1e3 * steps / num_steps, 3),
        "walk_ms": _ms(lambda: Snapshot(*parts_of(run), gradients=False)), "take_ms": _ms(kept.retake),
        "start_ms": round(1e3 * start, 3),
        "interval": snapshots.cadence.interval, "taken": snapshots.taken, "share": round(share, 2),
        "reached": "yes" if share <= 100 * cost else "no",
        "checksum_ms": _ms(lambda: int(checksum(run.parameters))),
    }  # fmt: skip


WARM_UP = 5
"""Steps before the training that is measured."""


def _train(run: Run, num_steps: int, cost: float) -> tuple[float, float, float, Snapshots]:
    """Processor seconds of all steps, of all offers and of the beginning, and the snapshots."""
    windows = run.loader.windows(run.position)
    for _ in range(WARM_UP):
        training_step(run, next(windows))
    began = time.process_time()
    snapshots = Snapshots(run, cost=cost)
    start, offers, steps = time.process_time() - began, 0.0, 0.0
    for _ in range(num_steps):
        window = next(windows)
        began = time.process_time()
        training_step(run, window)
        between = time.process_time()
        snapshots.offer(True)
        steps, offers = steps + between - began, offers + time.process_time() - between
    return steps, offers, start, snapshots


def _ms(call: Callable[[], object]) -> float:
    """The median processor time of a call, in milliseconds; the first one does not count."""
    call()
    times = []
    for _ in range(CALLS):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return round(1e3 * statistics.median(times), 3)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench snapshots", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="which (default all)")
    add("--steps", type=positive, default=None, help="length of the trainings (default: of each model its own)")
    add("--cost", type=float, default=0.01, help="share of the training time to stay below (default 0.01)")
    add("--with", nargs="+", default=[], dest="with_", metavar="OVERRIDE", help="options of the trainings")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)

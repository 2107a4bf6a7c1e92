"""What the model reaches on the validation data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from ava.data.loader import Batch, evaluation_batches
from ava.training.state import Run

Ask = Callable[[nn.Module, Batch], dict[str, torch.Tensor]]
"""One of a task's questions about a batch."""


def evaluate(run: Run, workers: int = 0) -> dict[str, float]:
    """The task's metrics over all validation samples, the same on every rank; weight averages where there are any,
    kept beside the training (EMA) or by the optimizer itself (Schedule-Free).

    Returns:
        metric name ("eval/loss", "eval/accuracy", ...) -> value.
    """
    with run.optimizer.averaged() if run.ema is None else run.ema.swapped():
        return _evaluate(run, workers)


@torch.no_grad()
def _evaluate(run: Run, workers: int) -> dict[str, float]:
    device = run.world.device
    totals: dict[str, torch.Tensor] = {}
    was_training = run.model.training
    run.model.eval()
    for batch in evaluation_batches(
        run.task.data.valid, batch_size=_batch_size(run), rank=run.world.rank, world_size=run.world.size,
        workers=workers, pin_memory=device.type == "cuda",
    ):  # fmt: skip
        for name, value in _sums(run, batch).items():
            # Float32 sums lose counts beyond 2**24.
            totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64, device=device)) + value
    run.model.train(was_training)
    return run.task.summarise(_over_ranks(run, totals))


@torch.no_grad()
def metric_names(run: Run) -> list[str]:
    """The names that `evaluate` will give, learned from the first validation sample on this rank alone."""
    was_training = run.model.training
    run.model.eval()
    sums = _sums(run, run.task.data.valid.fetch(np.zeros(1, dtype=np.int64), 0))
    run.model.train(was_training)
    return list(run.task.summarise({name: float(value) for name, value in sums.items()}))


@torch.no_grad()
def objective_names(run: Run) -> list[str]:
    """The names of the losses that are trained on, learned from the first training sample on this rank alone."""
    was_training = run.model.training
    run.model.eval()
    losses = _on_device(run, run.task.data.train.fetch(np.zeros(1, dtype=np.int64), 0), run.task.losses)
    run.model.train(was_training)
    return list(losses)


def _sums(run: Run, batch: Batch) -> dict[str, torch.Tensor]:
    return _on_device(run, batch, run.task.evaluate)


def _on_device(run: Run, batch: Batch, ask: Ask) -> dict[str, torch.Tensor]:
    with run.policy.autocast():
        return ask(run.model, {k: v.to(run.world.device, non_blocking=True) for k, v in batch.items()})


def _batch_size(run: Run) -> int:
    """As many samples at once as a training micro-batch holds: memory that is known to suffice."""
    return max(1, -(-run.loader.batch_size // (run.world.size * run.loader.accumulate)))


def _over_ranks(run: Run, totals: dict[str, torch.Tensor]) -> dict[str, float]:
    """The sums of all ranks; a rank without samples learns the names from the others."""
    mine = {name: float(value) for name, value in totals.items()}
    if run.world.size == 1:
        return mine
    names = run.world.decide(lambda: sorted(mine))
    return dict(zip(names, run.world.sum([mine.get(name, 0.0) for name in names]), strict=True))

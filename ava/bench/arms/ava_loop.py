"""The same training in Ava's own loop, with everything on that a default run has on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import torch

from ava import registry
from ava.bench.turns import Gate
from ava.bench.workloads import Workload
from ava.data.loader import Position, TrainingLoader, Window
from ava.distributed.world import World
from ava.optimization import OptimizerFactory
from ava.optimization.gradients.clip.clipping import bind
from ava.optimization.learning_rate.scheduler import Scheduler
from ava.optimization.learning_rate.schedules.constant import constant
from ava.optimization.precision.policy import Policy
from ava.reporting.listener import Listener
from ava.reporting.metrics import MetricsLog
from ava.tasks.task import Task
from ava.training.health import Watch
from ava.training.loop import Plan, Trainer
from ava.training.state import Run


class _Metered(TrainingLoader):
    """A loader that gives what the gate lets through."""

    gate: Gate[Window]

    def windows(self, start: Position) -> Iterator[Window]:
        return iter(self.gate)


def build(workload: Workload, task: Task, model: torch.nn.Module, loader: TrainingLoader) -> Run:
    """A run of the workload on this machine's processor, with AdamW, clipping and a constant schedule."""
    optimizer = OptimizerFactory.create("adamw", model.parameters(), lr=workload.lr, weight_decay=0.01)
    return Run(
        task=task, model=model, network=model, optimizer=optimizer, scheduler=Scheduler(optimizer, constant, 10**9),
        policy=Policy("fp32", "cpu"), clip=bind("norm"), loader=loader, world=World(0, 1, torch.device("cpu")),
        watch=Watch(statistics_every=workload.log_every),
    )  # fmt: skip


def default_listeners(folder: Path) -> list[Listener]:
    """What a default run tells: `metrics.jsonl` and TensorBoard."""
    return [MetricsLog(folder / "metrics.jsonl"), registry.logger["tensorboard"].load()(folder, 0)]


def train(workload: Workload, task: Task, model: torch.nn.Module, logs: bool, gate: Gate[Window]) -> None:
    """Train until the windows end, logging as a default run does, or telling nobody."""
    loader = TrainingLoader(task.data.train, batch_size=workload.batch_size)
    metered = _Metered(loader.split, batch_size=loader.batch_size)
    metered.gate = gate
    run = build(workload, task, model, metered)
    plan = Plan(
        10**9, log_every=workload.log_every, eval_every=0, checkpoint_every=0, keep_last=1, keep_best=False,
        monitor=task.monitor, mode=task.mode,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        listeners = default_listeners(Path(folder)) if logs else []
        for listener in listeners:
            stack.callback(listener.close)
        Trainer(run, plan, Path(folder), listeners).train()

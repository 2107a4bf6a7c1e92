"""What the loops are compared on: the default convnet with its tiny steps, and a small GPT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ava import registry
from ava.data.loader import Batch, Position, TrainingLoader
from ava.tasks.task import Task


@dataclass(frozen=True)
class Workload:
    """One model on one data set.

    Attributes:
        name: what the table calls it.
        task: the registered task, its data and its model, with the options given.
        batch_size: samples a step.
        steps: steps of one turn.
        log_every: steps between two readings of the loss, as in the task's own configuration.
        lr: AdamW's rate.
    """

    name: str
    task: str
    data: tuple[str, dict[str, Any]]
    model: tuple[str, dict[str, Any]]
    batch_size: int
    steps: int
    log_every: int = 10
    lr: float = 1e-3

    def build(self) -> tuple[Task, nn.Module, TrainingLoader]:
        """The same task, freshly initialised model and data order, each time."""
        torch.manual_seed(0)
        data = registry.data[self.data[0]].load()(0, **self.data[1])
        task = registry.task[self.task].load()(data)
        model = registry.model[self.model[0]].load()(data.spec, **self.model[1])
        return task, model, TrainingLoader(data.train, batch_size=self.batch_size)

    def batches(self, loader: TrainingLoader) -> Iterator[Batch]:
        """The batches of `loader`, one a step."""
        return (window.batches[0] for window in loader.windows(Position()))


WORKLOADS = {
    "digits": Workload(
        "digits convnet", "classification", ("digits", {}), ("convnet", {}), batch_size=32, steps=100, log_every=50
    ),
    "gpt": Workload(
        "GPT 1M", "stdlib_lm", ("stdlib", {"context": 128}), ("gpt", {"preset": "1m"}), batch_size=8, steps=8
    ),
}
"""By the name the command line uses."""

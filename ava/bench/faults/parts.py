"""What a fault needs to know of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from ava.errors import InputError
from ava.training.state import Run


class Scaler(Protocol):
    """torch.amp.GradScaler, as far as it matters here."""

    update: Callable[..., None]


@dataclass(frozen=True)
class Parts:
    """A training.

    Attributes:
        model: whose parameters the optimizer updates; the plain module, not what DDP or a compiler made of it.
        optimizer: whose steps are counted; not a wrapper around it.
        num_classes: targets are 0 <= target < num_classes; only kinds that draw labels or tokens need it.
        rank: this process.
        scaler: a torch.amp.GradScaler, where one decides whether the optimizer is called: then its `update` ends an
            attempt.
        run: where the parts are those of a run of Ava's.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    num_classes: int | None = None
    rank: int = 0
    scaler: Scaler | None = None
    run: Run | None = None

    @classmethod
    def of(cls, run: Run) -> Parts:
        """The parts of a run.

        Raises:
            InputError: it is compiled or recorded, where hooks are not heard.
        """
        if run.compilation is not None or run.graphs is not None:
            raise InputError(
                "a compiled or recorded training does not hear hooks.",
                hint="Set trainer.compile=false and trainer.cuda_graphs=false.",
            )
        return cls(run.model, run.optimizer, num_classes(run.task.data.spec), run.world.rank, run=run)

    def named(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name; one that has several names has its first."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}


def num_classes(spec: Any) -> int | None:
    """What the targets of a task are below; None where its data does not say."""
    for name in ("num_classes", "vocab_size"):
        if isinstance(found := getattr(spec, name, None), int):
            return found
    return None

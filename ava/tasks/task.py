"""What a task is: data, the losses that a model is trained on, and the metrics that say how well it does.

A task is one function under `@task`. It gets the data and the options of its config, and returns an object with the
methods below. Losses and metrics are sums, not means: the frame adds them up over micro-batches and ranks and divides
once by what was counted, so neither accumulation nor the number of ranks changes the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from ava.data.source import Data
from ava.errors import InputError

Batch = Mapping[str, Tensor]
S = TypeVar("S")


@dataclass(frozen=True)
class Baseline:
    """What a simple method reaches on the same validation data: `gzip -9`, `eval/bits_per_byte`, 1.91."""

    name: str
    metric: str
    value: float


def spec_of(data: Data, sort: type[S], remedy: str) -> S:
    """The data's spec, if it is of the sort that a task needs.

    Raises:
        InputError: it is of another sort; ends with `remedy`.
    """
    if not isinstance(data.spec, sort):
        raise InputError(
            f"this task needs data described by {sort.__name__}, not by {type(data.spec).__name__}.", hint=remedy
        )
    return data.spec


class Task(Protocol):
    """What the frame asks of a task.

    Attributes:
        data: what it trains and evaluates on.
        monitor: the metric that says which checkpoint is best, such as "eval/accuracy".
        mode: whether more or less of it is better.
    """

    @property
    def data(self) -> Data: ...  # noqa: D102

    @property
    def monitor(self) -> str: ...  # noqa: D102

    @property
    def mode(self) -> Literal["min", "max"]: ...  # noqa: D102

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Objective -> its loss summed over the batch's counted terms, 0-dim float32 with a gradient.

        Args:
            model: called as `model(batch["inputs"])`.
            batch: as the data gives it, on the model's device.
        """
        ...

    def count(self, batch: Batch) -> int:
        """The number of terms that the losses of this batch sum over; `batch` is on the CPU."""
        ...

    def evaluate(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Name -> 0-dim sum over the batch, on the model's device; the frame adds them over batches and ranks."""
        ...

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """The metrics, `eval/...`, from the sums over the whole validation split."""
        ...

    def baselines(self) -> list[Baseline]:
        """What simple methods reach on the same validation data; may take a few seconds."""
        ...


@runtime_checkable
class ModelDemands(Protocol):
    """A task that asks more of a model than to be called with inputs.

    Attributes:
        twice_differentiable: whether its losses have a second derivative.
    """

    @property
    def twice_differentiable(self) -> bool: ...  # noqa: D102

    def check_model(self, model: torch.nn.Module) -> None:
        """Refuse a model that lacks what the task will ask of it.

        Raises:
            InputError: it lacks something; says what it has to offer.
        """
        ...


@runtime_checkable
class SamplingTask(Task, Protocol):
    """A task whose model gives probabilities, for estimates of the curvature by Gauss-Newton-Bartlett."""

    def sampled_losses(
        self, model: torch.nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:  # fmt: skip
        """As `losses`, but with targets drawn from the model's own output in place of the batch's, unsmoothed.

        Args:
            model: called as `model(batch["inputs"])`.
            batch: as the data gives it, on the model's device; its targets say only what counts.
            generator: on the model's device; the only source of random numbers for the targets.
        """
        ...

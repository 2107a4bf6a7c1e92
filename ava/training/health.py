"""The `health` slot: how closely gradients are looked at, and what is told of a step whose gradient was not finite."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from ava.data.loader import Position
from ava.optimization.gradients.health.measurement import Measurement

MANY = 5
"""So many names or numbers are said in a sentence; all of them stand in the incidents."""


@dataclass(frozen=True)
class Watch:
    """What to measure, and what to do about a gradient that is not finite.

    Attributes:
        on_nonfinite: skip goes on, raise ends the run, rollback goes back and on with other samples.
        max_consecutive: so many such steps in a row are survived.
        statistics_every: steps between two measurements of more than norms; 0 makes none.
        detail_every: steps between two looks at each layer; 0 never looks.
        anomaly: look for the operation that makes the first NaN or infinity.
    """

    on_nonfinite: Literal["skip", "raise", "rollback"] = "raise"
    max_consecutive: int = 10
    statistics_every: int = 0
    detail_every: int = 0
    anomaly: bool = False

    def wants_statistics(self, step: int) -> bool:
        """Whether step number `step` is measured in full."""
        return self.statistics_every > 0 and step % self.statistics_every == 0

    def wants_detail(self, step: int) -> bool:
        """Whether step number `step` looks at each layer."""
        return self.detail_every > 0 and step % self.detail_every == 0


@dataclass(frozen=True)
class NonFinite:
    """A step whose gradient was not finite; the optimizer skipped it.

    Attributes:
        step: its number.
        norm: of the gradient.
        losses: objective -> its mean loss.
        layers: names of the parameters whose gradients were not finite.
        start: where in the data the samples were taken.
        samples: their places in the training split.
        in_a_row: so many such steps have come one after another, this one included.
    """

    step: int
    norm: float
    losses: dict[str, float]
    layers: list[str]
    start: Position
    samples: list[int]
    in_a_row: int

    def incident(self) -> dict[str, Any]:
        """What incidents.jsonl says of it."""
        return {
            "loss": sum(self.losses.values()), "grad_norm": self.norm, "num_layers": len(self.layers),
            "layers": self.layers, "epoch": self.start.epoch, "first_sample": self.start.sample,
            "samples": self.samples, "in_a_row": self.in_a_row,
        }  # fmt: skip

    def in_short(self) -> dict[str, Any]:
        """What fits a line."""
        return {
            "loss": sum(self.losses.values()), "layers": _some(self.layers) or "?", "epoch": self.start.epoch,
            "first_sample": self.start.sample,
        }  # fmt: skip

    def sentence(self) -> str:
        """What went wrong, where and with which samples."""
        where = f" in {_some(self.layers)}" if self.layers else ""
        return (
            f"the gradient is not finite{where} (loss {sum(self.losses.values()):.4g}), with samples "
            f"{_some(self.samples)} of the training data (epoch {self.start.epoch}, from place {self.start.sample})."
        )

    def remedy(self, may_skip: bool = True) -> str:
        """What to try.

        Args:
            may_skip: whether leaving such steps out has not been tried yet.
        """
        if all(math.isfinite(value) for value in self.losses.values()):
            return (
                "The loss itself is finite, so it is an operation of the backward pass: `health.anomaly=true` names "
                "it. If training was diverging, a lower optimizer.lr or more scheduler.warmup_steps help."
            )
        skip = " or leave them out: health.on_nonfinite=skip" if may_skip else ""
        return (
            "`health.anomaly=true` names the operation that makes the first NaN. If it is the data, look at these "
            f"samples{skip}; if training was diverging, a lower optimizer.lr, more scheduler.warmup_steps or a lower "
            "trainer.clip_norm help."
        )


def nonfinite_layers(model: nn.Module, found: Measurement) -> list[str]:
    """The names of the parameters whose gradients were not finite; waits for the device."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    finite = torch.isfinite(found.norms).tolist()
    return [names.get(id(p), "?") for p, is_finite in zip(found.parameters, finite, strict=True) if not is_finite]


def _some(items: Sequence[object]) -> str:
    """The first few, and how many more there are."""
    said = ", ".join(map(str, items[:MANY]))
    return said if len(items) <= MANY else f"{said} and {len(items) - MANY} more"

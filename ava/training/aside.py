"""What a line of the log says besides what steps reported: layers, how far weights moved, and what a step sets anew.

It travels to the host together with the steps' own numbers, so that a line costs one transfer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.stability.verdict import Number


@dataclass(frozen=True)
class Aside:
    """Numbers of the last step, on their way or read.

    Attributes:
        health: what was measured of its gradients; None where nobody wants to know.
        movement: of the weights' sample, as of `Movement.since_last`.
        moving: as of `columns.moving`.
        layer_norms: parameter and norm of its gradient, once read.
        moved: how far the sample went, and how large it is; NaN where that is not known.
        numbers: `moving`, once read.
    """

    health: Measurement | None = None
    movement: Sequence[Tensor] = ()
    moving: Mapping[str, Number] = field(default_factory=dict)
    layer_norms: Sequence[tuple[Tensor, float]] = ()
    moved: tuple[float, float] = (math.nan, math.nan)
    numbers: Mapping[str, float] = field(default_factory=dict)

    def unread(self) -> list[Tensor]:
        """What is to be read, in the order that `read` expects."""
        if self.health is None:
            return []
        tensors = [value for value in self.moving.values() if isinstance(value, Tensor)]
        return [self.health.norms, *self.movement, *tensors]

    def read(self, numbers: Sequence[float]) -> Aside:
        """Without tensors of the device that are read by now.

        Args:
            numbers: of `unread`.
        """
        if self.health is None:
            return self
        parameters, rest = self.health.parameters, iter(numbers[len(self.health.norms) :])
        moved = [next(rest) for _ in self.movement] or list(self.moved)
        told = {name: next(rest) if isinstance(value, Tensor) else value for name, value in self.moving.items()}
        return dataclasses.replace(
            self, health=None, movement=(), moving={}, moved=(moved[0], moved[1]), numbers=told,
            layer_norms=list(zip(parameters, numbers, strict=False)),
        )  # fmt: skip

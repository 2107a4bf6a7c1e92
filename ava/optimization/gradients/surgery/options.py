"""The options that all surgery methods share; this signature is their schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ava.registry import NonNegativeInt, PositiveInt


@dataclass(frozen=True)
class Shared:
    """How a method is applied.

    Attributes:
        level: whose gradients are compared: those of the shared parameters, or those of the shared features.
        every: optimizer steps between two times that weights are worked out anew; in between the last are used.
        reduction: whether the combined gradient is that of the sum of the losses or of their mean where nothing is
            to be reconciled.
        seed: of what is random in a method.
    """

    level: Literal["parameters", "features"] = "parameters"
    every: PositiveInt = 1
    reduction: Literal["sum", "mean"] = "sum"
    seed: NonNegativeInt = 0


def extend(
    level: Literal["parameters", "features"] = "parameters",
    every: PositiveInt = 1,
    reduction: Literal["sum", "mean"] = "sum",
    seed: NonNegativeInt = 0,
) -> Shared:
    """Bind the options that all methods share."""
    return Shared(level, every, reduction, seed)

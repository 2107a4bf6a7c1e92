"""Reflected exponential decay."""

from __future__ import annotations

from ava.optimization.learning_rate.factors import Factors
from ava.registry import Fraction, scheduler


@scheduler
def rex(step: int, total: int, /, floor: Fraction = 0.0) -> Factors:
    """REX: holds the rate longer than a line and falls faster at the end; good on any budget.

        floor + (1 - floor) * (1 - t) / (1/2 + (1 - t) / 2)    with t = step / total

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        floor: multiplier reached at `total`.

    Returns:
        The multiplier on every group's base learning rate.

    Reference: Chen et al. 2021, https://arxiv.org/abs/2107.04197
    """
    left = 1 - step / total
    return Factors(floor + (1 - floor) * left / (0.5 + left / 2))

"""Exponential decay."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt, Le

from ava.optimization.learning_rate.factors import Factors
from ava.registry import scheduler


@scheduler
def exponential(
    step: int,
    total: int,
    /,
    gamma: Annotated[float, Gt(0), Le(1)] | None = None,
    end_factor: Annotated[float, Gt(0), Le(1)] = 0.01,
) -> Factors:
    """Exponential decay: every step keeps the same share of the rate.

        gamma ** step    with gamma = end_factor ** (1 / total) unless it is given

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        gamma: what a step leaves of the rate; null is what leads to `end_factor`.
        end_factor: multiplier reached at `total`, where `gamma` is null.

    Returns:
        The multiplier on every group's base learning rate.

    Reference: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.ExponentialLR.html
    """
    return Factors(end_factor ** (step / total) if gamma is None else gamma**step)

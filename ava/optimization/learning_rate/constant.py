"""Constant learning rate."""

from __future__ import annotations

from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.warmup import warm_up
from ava.registry import NonNegativeInt, scheduler


@scheduler
def constant(step: int, total: int, /, warmup_steps: NonNegativeInt = 0) -> Factors:
    """Constant: the learning rate as it was given, after the warmup.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        warmup_steps: steps of linear rise before it.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: `warmup_steps` is not below `total`.
    """
    _, _, rise = warm_up(step, total, warmup_steps)
    return Factors(rise)

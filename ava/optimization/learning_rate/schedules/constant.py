"""Constant learning rate."""

from __future__ import annotations

from ava.optimization.learning_rate.factors import Factors
from ava.registry import scheduler


@scheduler
def constant(step: int, total: int, /) -> Factors:
    """Constant: the learning rate as it was given, after the warmup.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.

    Returns:
        The multiplier on every group's base learning rate.
    """
    return Factors(1.0)

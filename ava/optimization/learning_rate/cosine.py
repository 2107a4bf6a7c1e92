"""Cosine decay."""

from __future__ import annotations

import math

from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.warmup import warm_up
from ava.registry import Fraction, NonNegativeInt, scheduler


@scheduler
def cosine(step: int, total: int, /, floor: Fraction = 0.0, warmup_steps: NonNegativeInt = 0) -> Factors:
    """Cosine decay from 1 to `floor`; the usual choice.

        floor + (1 - floor) * (1 + cos(pi * step / total)) / 2

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        floor: multiplier reached at `total`.
        warmup_steps: steps of linear rise before the decay.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: `warmup_steps` is not below `total`.

    Reference: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983
    """
    step, total, rise = warm_up(step, total, warmup_steps)
    return Factors(rise * (floor + (1 - floor) * (1 + math.cos(math.pi * step / total)) / 2))

"""Cosine decay."""

from __future__ import annotations

import math

from ava.optimization.learning_rate.factors import Factors
from ava.registry import Fraction, scheduler


@scheduler
def cosine(step: int, total: int, /, floor: Fraction = 0.0) -> Factors:
    """Cosine decay from 1 to `floor`; the usual choice.

        floor + (1 - floor) * (1 + cos(pi * step / total)) / 2

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        floor: multiplier reached at `total`.

    Returns:
        The multiplier on every group's base learning rate.

    Reference: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983
    """
    return Factors(floor + (1 - floor) * (1 + math.cos(math.pi * step / total)) / 2)

"""Decay with the square root of time."""

from __future__ import annotations

import math

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.lengths import in_steps
from ava.registry import Length, scheduler


@scheduler
def inverse_sqrt(step: int, total: int, /, timescale: Length = 0.1) -> Factors:
    """Inverse square root: slow decay without an end, as the first transformers were trained.

        sqrt(timescale / (timescale + step))

    After a warmup of `timescale` steps that starts at 0 this is the schedule of the transformer paper. A `timescale`
    in steps makes it independent of the training's length, so that a training can be extended.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        timescale: the rate has halved after three times this length.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: the time scale is 0.

    Reference: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    """
    scale = in_steps(timescale, total)
    if scale == 0:
        problem = "must be above 0: the rate would be 0 after the first step."
        raise InputError(problem, key="timescale", value=timescale, hint="Such as 0.1, or the length of the warmup.")
    return Factors(math.sqrt(scale / (scale + step)))

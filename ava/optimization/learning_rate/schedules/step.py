"""Decay by steps of equal length."""

from __future__ import annotations

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.lengths import in_steps
from ava.registry import Fraction, Length, scheduler


@scheduler
def step(step: int, total: int, /, step_size: Length = 0.3, gamma: Fraction = 0.1) -> Factors:
    """Step decay: times `gamma` after every `step_size` steps, as ResNets were trained.

        gamma ** floor(step / step_size)

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        step_size: steps between two drops.
        gamma: what a drop leaves of the rate.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: there is no step between two drops.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385
    """
    size = in_steps(step_size, total)
    if size == 0:
        problem = "must be above 0: there are steps between two drops."
        raise InputError(problem, key="step_size", value=step_size, hint="Such as 0.3 or 1000.")
    return Factors(gamma ** (step // size))

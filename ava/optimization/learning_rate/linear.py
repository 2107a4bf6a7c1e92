"""Linear decay."""

from __future__ import annotations

from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.warmup import warm_up
from ava.registry import Fraction, NonNegativeInt, scheduler


@scheduler
def linear(step: int, total: int, /, end_factor: Fraction = 0.0, warmup_steps: NonNegativeInt = 0) -> Factors:
    """Linear decay from 1 to `end_factor`.

        1 + (end_factor - 1) * step / total

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        end_factor: multiplier reached at `total`.
        warmup_steps: steps of linear rise before the decay.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: `warmup_steps` is not below `total`.

    Reference: Defazio et al. 2023, https://arxiv.org/abs/2310.07831
    """
    step, total, rise = warm_up(step, total, warmup_steps)
    return Factors(rise * (1 + (end_factor - 1) * step / total))

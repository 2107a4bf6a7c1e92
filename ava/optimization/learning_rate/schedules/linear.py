"""Linear decay."""

from __future__ import annotations

from ava.optimization.learning_rate.factors import Factors
from ava.registry import Fraction, scheduler


@scheduler
def linear(step: int, total: int, /, end_factor: Fraction = 0.0) -> Factors:
    """Linear decay from 1 to `end_factor`.

        1 + (end_factor - 1) * step / total

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        end_factor: multiplier reached at `total`.

    Returns:
        The multiplier on every group's base learning rate.

    Reference: Defazio et al. 2023, https://arxiv.org/abs/2310.07831
    """
    return Factors(1 + (end_factor - 1) * step / total)

"""Polynomial decay."""

from __future__ import annotations

from ava.optimization.learning_rate.factors import Factors
from ava.registry import Fraction, PositiveFloat, scheduler


@scheduler
def polynomial(step: int, total: int, /, power: PositiveFloat = 2.0, floor: Fraction = 0.0) -> Factors:
    """Polynomial decay from 1 to `floor`: the usual choice for segmentation, and for LARS and LAMB.

        floor + (1 - floor) * (1 - step / total) ** power

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        power: 1 is a line; the higher, the earlier and the deeper the decay.
        floor: multiplier reached at `total`.

    Returns:
        The multiplier on every group's base learning rate.

    Reference: Chen et al. 2016 (power 0.9), https://arxiv.org/abs/1606.00915
    """
    return Factors(floor + (1 - floor) * (1 - step / total) ** power)

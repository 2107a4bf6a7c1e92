"""Momentum that falls with hindrance."""

from __future__ import annotations

from ava.optimization.stability.verdict import Number
from ava.registry import momentum_schedule


@momentum_schedule
def adaptive(hindrance: Number, /) -> Number:
    """Momentum falls with hindrance: what was remembered before the trouble counts for less.

        1 - hindrance^3

    The cube leaves nearly all of it below an alarm (0.5), where one step in a hundred is by chance.

    Args:
        hindrance: from 0 to 1, without stagnation and vanishing; 0-dim on an accelerator.

    Returns:
        The share of momentum that is left.
    """
    return 1 - hindrance * hindrance * hindrance

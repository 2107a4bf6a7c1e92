"""Momentum that looks ahead, and falls with hindrance."""

from __future__ import annotations

from ava.optimization.stability.verdict import Number
from ava.registry import momentum_schedule


@momentum_schedule(looks_ahead=True)
def nesterov(hindrance: Number, /) -> Number:
    """Momentum looks one step ahead (NAdam), and falls with hindrance.

        1 - hindrance^3

    Args:
        hindrance: from 0 to 1, without stagnation and vanishing; 0-dim on an accelerator.

    Returns:
        The share of momentum that is left.

    Reference: Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """
    return 1 - hindrance * hindrance * hindrance

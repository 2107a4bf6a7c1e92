"""Momentum that stays."""

from __future__ import annotations

from ava.optimization.stability.verdict import Number
from ava.registry import momentum_schedule


@momentum_schedule
def fixed(hindrance: Number, /) -> Number:
    """Momentum stays as it was given.

    Args:
        hindrance: from 0 to 1; 0-dim on an accelerator.

    Returns:
        1: all of it is left.
    """
    return 1.0

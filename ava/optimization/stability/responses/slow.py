"""A lower rate while training is hindered."""

from __future__ import annotations

from ava.optimization.stability.acts import Act, rush
from ava.optimization.stability.verdict import Number, Verdict
from ava.registry import Fraction, response


@response
def slow(verdict: Verdict, update_factor: Number, /, strength: Fraction = 0.5) -> Act:
    """The rate falls with hindrance, and rises with its end; stagnation and vanishing do not count.

        rate = 1 - strength * hindrance^3

    The cube leaves nearly all of it below an alarm (0.5), where one step in a hundred is by chance.

    Args:
        verdict: on this step.
        update_factor: what would bring the last update back among the others.
        strength: how much of the rate full hindrance takes.
    """
    hindrance = rush(verdict)
    return Act(rate=1 - strength * (hindrance * hindrance * hindrance))

"""A lower rate after an update that was out of line."""

from __future__ import annotations

from ava.optimization.stability.acts import Act
from ava.optimization.stability.verdict import Number, Verdict
from ava.registry import response


@response
def shrink(verdict: Verdict, update_factor: Number, /) -> Act:
    """An update is made shorter by what the last one was too long: momentum would repeat it.

    Args:
        verdict: on this step.
        update_factor: what would bring the last update back among the others, at most 1.
    """
    return Act(rate=update_factor)

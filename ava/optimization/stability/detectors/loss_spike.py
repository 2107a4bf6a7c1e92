"""The loss far above what was expected."""

from __future__ import annotations

from typing import Any

from ava.optimization.stability.seen import Seen, severity_of
from ava.registry import detector


@detector(acute=True)
def loss_spike(seen: Seen, /) -> Any:
    """Loss spike: a loss beyond `sigmas` deviations, or one that has moved up for good.

        min(1, z / (2 sigmas)), at least 0.5 while the alarm lasts, 0 below 3 deviations

    Args:
        seen: the step; where it has no loss, the severity stays what the alarm says.

    Returns:
        The severity, in [0, 1].
    """
    return severity_of(seen.loss, seen.sigmas)

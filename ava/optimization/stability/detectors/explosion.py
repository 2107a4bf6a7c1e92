"""The gradient norm far above what was expected."""

from __future__ import annotations

from typing import Any

from ava.optimization.stability.seen import Seen, severity_of
from ava.registry import detector


@detector(acute=True)
def explosion(seen: Seen, /) -> Any:
    """Explosion: a gradient norm beyond `sigmas` deviations, or one that has moved up for good.

        min(1, z / (2 sigmas)), at least 0.5 while the alarm lasts, 0 below 3 deviations

    Args:
        seen: the step.

    Returns:
        The severity, in [0, 1].
    """
    return severity_of(seen.gradient, seen.sigmas)

"""A gradient norm or a loss that is no number."""

from __future__ import annotations

from typing import Any

from ava.optimization.stability.operands import where
from ava.optimization.stability.seen import Seen
from ava.registry import detector


@detector(acute=True)
def nonfinite(seen: Seen, /) -> Any:
    """Non-finite: 1 where the gradient norm or the loss is NaN or infinite, else 0.

    Args:
        seen: the step.
    """
    return where(seen.is_finite, 0.0, 1.0)

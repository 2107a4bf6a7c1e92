"""What a measured value made of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cause = Literal["plateau", "improvement"]
Action = Literal["reduce", "increase", "restart", "warn"]


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about the learning rate.

    Attributes:
        step: after which it was made.
        cause: what was seen.
        action: what was done.
        before: the multiplier (or rate) before.
        after: the multiplier (or rate) that it leads to; the same where nothing but a warning was due.
        smoothed: the smoothed value at that time.
        noise: the estimated standard deviation of a single value around its trend.
    """

    step: int
    cause: Cause
    action: Action
    before: float
    after: float
    smoothed: float
    noise: float

"""A warm restart: the rate rises to a peak, and falls back along a cosine to where it was."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cycle:
    """One cycle, a pure function of the step.

    Attributes:
        start: the step at which it was decided.
        length: in steps; the first tenth of them rises.
        level: the rate around it.
        peak: the highest rate.
    """

    start: int
    length: int
    level: float
    peak: float

    def covers(self, step: int) -> bool:
        """Whether the step lies within."""
        return self.start <= step < self.start + self.length

    def at(self, step: int) -> float:
        """The rate of a step; `level` outside."""
        if not self.covers(step):
            return self.level
        rise = max(1, self.length // 10)
        done = step - self.start + 1
        if done <= rise:
            return self.level + (self.peak - self.level) * done / rise
        progress = (done - rise) / (self.length - rise + 1)
        return self.level + (self.peak - self.level) * (1 + math.cos(math.pi * progress)) / 2

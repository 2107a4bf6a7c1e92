"""How fast a series should still fall, if it falls at all: the past lets expect it.

A loss that falls like t^-a slows down like t^-(1 + a). From the fastest fall g that was ever sure, around time c,
the least to expect at time t is

    g (c / t)^1.5

which is less than any power law with a < 1/2 gives. So a fall that only slows down as learning does is never taken for
one that has ended, and the measure of a training is its own past.
"""

from __future__ import annotations

import math


class Expectation:
    """Remembers the fastest sure fall as the factor k of k t^-1.5.

    Attributes:
        factor: k; 0 where no fall was sure yet.
    """

    def __init__(self, factor: float = 0.0) -> None:
        self.factor = factor

    def fall(self, middle: float) -> float:
        """The least fall per value to expect around time `middle` > 0."""
        return self.factor / (middle * math.sqrt(middle))

    def learn(self, fall: float, begin: float, end: float) -> None:
        """Take in a sure fall per value between two times."""
        self.factor = max(self.factor, fall * weight(begin, end))


def weight(begin: float, end: float) -> float:
    """The k of a mean fall of 1 between two times: the mean of k t^-1.5 is 2 k (begin^-1/2 - end^-1/2) / length."""
    return math.sqrt(begin * end) * (math.sqrt(begin) + math.sqrt(end)) / 2

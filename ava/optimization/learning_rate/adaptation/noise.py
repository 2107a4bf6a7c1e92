"""What is known of a series' noise: its variance, and how much a value has in common with the one before.

The noise is taken for autoregressive of first order: values k steps apart have the correlation r^k. Means of two
neighbours then have the variance v (1 + r) / 2 and the correlation r (1 + r) / 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

MOST_CORRELATED = 0.98
"""Beyond it a series is as good as a random walk, in which no trend can be told from noise."""
_LOOKS, _RECENT_LOOKS, _NEW_VALUES = 128, 8, 4
"""Over how many looks the correlation and the variance are averaged, and how many values are new to each."""


class Noise(NamedTuple):
    """Noise of one value.

    Attributes:
        num_values: how many values the knowledge rests on; 0 is none.
        variance: of one value.
        correlation: of neighbours, at least 0.
    """

    num_values: int
    variance: float
    correlation: float

    @property
    def is_known(self) -> bool:
        """Whether it rests on enough values to be believed."""
        return self.num_values >= 16

    @property
    def of_pairs(self) -> Noise:
        """The noise of the means of two neighbours."""
        shared = (1 + self.correlation) / 2
        return Noise(self.num_values, self.variance * shared, self.correlation * shared)


UNKNOWN = Noise(0, 0.0, 0.0)


class NoiseMemory:
    """Averages what every look at the values says of their noise."""

    def __init__(self) -> None:
        self._looks = 0
        self._variance = self._correlation = 0.0
        self._levels: list[Noise] = []

    def learn(self, variance: float, correlation: float) -> None:
        """Take in what the last values say."""
        self._looks = min(self._looks + 1, _LOOKS)
        self._correlation += (correlation - self._correlation) / self._looks
        # Noise shrinks with the loss, so its size is soon forgotten.
        self._variance += (variance - self._variance) / min(self._looks, _RECENT_LOOKS)
        self._levels = []

    def at(self, level: int) -> Noise:
        """The noise of the mean of 2^level values."""
        if not self._levels:
            r = min(max(self._correlation, 0.0), MOST_CORRELATED)
            self._levels = [Noise(_NEW_VALUES * self._looks, self._variance, r)]
        while len(self._levels) <= level:
            self._levels.append(self._levels[-1].of_pairs)
        return self._levels[level]

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"looks": self._looks, "variance": self._variance, "correlation": self._correlation}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from them."""
        self._looks, self._variance, self._correlation = state["looks"], state["variance"], state["correlation"]
        self._levels = []

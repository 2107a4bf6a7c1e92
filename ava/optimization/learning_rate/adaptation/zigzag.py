"""Whether a series shows noise at all.

Noise makes a series go up and down. A series that keeps its direction, or repeats its values, or walks a straight
line, shows none, and then every single value can be believed.
"""

from __future__ import annotations

from collections import deque
from typing import Any

MEMORY = 64
"""Differences that are remembered."""
TRUSTED = 16
"""So many differences with at most one turn are no accident: noise like a random walk does it once in 2,000 times."""
STRAIGHT = 1e-5
"""Two differences that agree to this share of their size lie on one line."""


class Zigzag:
    """Counts turns and kinks among the last differences of a series."""

    def __init__(self) -> None:
        self._value: float | None = None
        self._difference = 0.0
        # Of each difference: 0 repeats the value, 1 goes straight on, 2 has a kink, 3 turns round.
        self._kinds: deque[int] = deque(maxlen=MEMORY)
        self._counts = [0, 0, 0, 0]

    def add(self, value: float) -> None:
        """Take in the next value."""
        last, self._value = self._value, value
        if last is None:
            return
        if len(self._kinds) == MEMORY:
            self._counts[self._kinds[0]] -= 1
        kind = self._kind(value - last)
        self._kinds.append(kind)
        self._counts[kind] += 1

    def _kind(self, difference: float) -> int:
        if difference == 0.0:
            return 0
        last, self._difference = self._difference, difference
        if last * difference < 0.0:
            return 3
        straight = last == 0.0 or abs(difference - last) <= STRAIGHT * (abs(difference) + abs(last))
        return 1 if straight else 2

    @property
    def is_calm(self) -> bool:
        """Whether the series shows no noise."""
        _, straight, kinks, turns = self._counts
        return self.is_straight or (turns <= 1 and straight + kinks + turns >= TRUSTED)

    @property
    def has_turned(self) -> bool:
        """Whether it went both up and down."""
        return self._counts[3] > 0

    @property
    def is_straight(self) -> bool:
        """Whether it has hardly a kink besides."""
        repeats, straight, kinks, turns = self._counts
        return turns <= 1 and 2 * (kinks + turns) <= repeats + straight

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"value": self._value, "difference": self._difference, "kinds": list(self._kinds)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from them."""
        self._value, self._difference = state["value"], state["difference"]
        self._kinds = deque(state["kinds"], maxlen=MEMORY)
        self._counts = [self._kinds.count(kind) for kind in range(4)]

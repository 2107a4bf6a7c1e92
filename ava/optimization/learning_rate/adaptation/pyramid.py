"""The recent past of a series at every scale: level k holds the means of the last blocks of 2^k values.

A value is added in constant time on average, and n values need log2(n) short lists.
"""

from __future__ import annotations

from typing import Any

LENGTH = 32
"""Blocks that a level keeps."""


class Pyramid:
    """Means over blocks of 1, 2, 4, ... values.

    Attributes:
        levels: level k's last block means, the newest last.
        counts: how many blocks each level has seen.
    """

    def __init__(self) -> None:
        self.levels: list[list[float]] = []
        self.counts: list[int] = []
        # The first half of each level's next pair.
        self._waiting: list[float | None] = []

    def add(self, value: float) -> int:
        """Take in the next value.

        Returns:
            The number of levels, from the lowest, that have a new block.
        """
        level = 0
        while True:
            if level == len(self.levels):
                self.levels.append([])
                self.counts.append(0)
                self._waiting.append(None)
            blocks = self.levels[level]
            if len(blocks) == LENGTH:
                del blocks[0]
            blocks.append(value)
            self.counts[level] += 1
            half = self._waiting[level]
            if half is None:
                self._waiting[level] = value
                return level + 1
            self._waiting[level] = None
            value = (half + value) / 2
            level += 1

    def clear(self) -> None:
        """Forget everything."""
        self.levels, self.counts, self._waiting = [], [], []

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "levels": [list(blocks) for blocks in self.levels],
            "counts": list(self.counts),
            "waiting": list(self._waiting),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from them."""
        self.levels = [list(blocks) for blocks in state["levels"]]
        self.counts, self._waiting = list(state["counts"]), list(state["waiting"])

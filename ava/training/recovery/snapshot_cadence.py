"""How often a snapshot may be taken, so that all of them cost no more than a given share of the training time.

    interval = ceil(seconds to take one / (0.55 share * seconds of a step)), within [5, 1000]

Both are medians of what was measured last, so that evaluations between steps do not count; the rest is left for looking
whether one is due. Making memory for the first ones costs more than the share: as long as more was spent than the share
of the time so far, the interval is two to four times that, and no more memory is made than for two of them.
"""

from __future__ import annotations

import math

from ava.distributed.world import World
from ava.training.recovery.snapshot_clock import Clock, clock_for

LEAST, MOST = 5, 1000
"""Bounds of the interval in steps."""
_FOR_TAKING = 0.55
"""Of the share; the rest is for what is done in steps without a snapshot."""

_SLOWER = (2, 4)
"""By what the interval is longer, at least and at most, while more was spent than the share."""


class Cadence:
    """Says when the next snapshot is due; alike on all ranks.

    Args:
        world: the ranks, which agree on what was measured whenever a snapshot may be due.
        every: steps between two; None lets the cost decide.
        cost: the share of training time, in (0, 1].

    Attributes:
        clock: measures what snapshots and steps take.
        is_in_debt: whether more was spent than the share of the time so far.
        interval: steps between two snapshots, as things stand.
    """

    def __init__(self, world: World, every: int | None, cost: float) -> None:
        self.world, self.every, self.cost = world, every, cost
        self.clock: Clock = clock_for(world.device)
        self.interval = every or LEAST
        self.is_in_debt = False

    def is_due(self, since: int, total: int) -> bool:
        """Whether a snapshot is to be taken; if the interval is over, the ranks speak to each other.

        Args:
            since: steps since the last one.
            total: steps since the first one.
        """
        if since >= self.interval:
            self.clock.read()
        if since >= self.interval and self.every is None:
            self.interval = self._affordable(total)
        return since >= self.interval

    def _affordable(self, total: int) -> int:
        """The interval that pays for the next snapshot, and bit by bit for what the first ones cost."""
        mine = [sorted(some)[len(some) // 2] if some else 0.0 for some in (self.clock.takes, self.clock.steps)]
        take, step, spent = self.world.sum([*mine, self.clock.seconds])
        if step <= 0.0:
            return self.interval
        affordable = _FOR_TAKING * self.cost * step
        interval, debt = math.ceil(take / affordable), spent / (affordable * total)
        self.is_in_debt = debt > 1
        if self.is_in_debt:
            interval *= min(max(math.ceil(debt), _SLOWER[0]), _SLOWER[1])
        return min(max(interval, LEAST), MOST)

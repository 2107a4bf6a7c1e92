"""The learning rate after trouble: down at once, up again by and by.

    multiplier = factor * min(1, (steps since going back + 1) / warmup)

Going back multiplies the factor by less than 1; it doubles after every `GROWTH` clean steps, up to the ceiling, for
what went wrong may have passed. Where trouble comes again near a factor at which it came before, the rate itself is to
blame, and the ceiling stays below it. Where it turns out that the data were to blame, the fall is taken back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

GROWTH = 10
"""Clean steps after which the factor doubles."""
NEAR = 1.5
"""Factors that differ by no more than this are one."""
MEMORY = 500
"""Clean steps below the ceiling or at it after which earlier trouble is forgotten."""
LEAST = 2.0**-30


class Comeback:
    """What the schedule's rate is multiplied with.

    Args:
        warmup_steps: in which the rate rises after going back; 0 sets it at once.

    Attributes:
        factor: of the rate once warmed up, in (0, 1].
        ceiling: what the factor may grow to.
    """

    def __init__(self, warmup_steps: int) -> None:
        self.warmup_steps = warmup_steps
        self.factor = self.ceiling = 1.0
        self._troubled: list[float] = []
        self._since: int | None = None
        self._clean = self._sound = 0
        self._before: tuple[float, float, list[float]] = (1.0, 1.0, [])

    @property
    def multiplier(self) -> float:
        """On the rate of the next step."""
        if self._since is None or self._since + 1 >= self.warmup_steps:
            return self.factor
        return self.factor * (self._since + 1) / self.warmup_steps

    def fall(self, by: float) -> None:
        """Lower the rate, for the run went back.

        Args:
            by: factor, in (0, 1].
        """
        self._before = (self.factor, self.ceiling, list(self._troubled))
        if any(abs(math.log(self.factor / known)) <= math.log(NEAR) for known in self._troubled):
            self.ceiling = min(self.ceiling, max(self.factor * by, LEAST))
        else:
            self._troubled.append(self.factor)
        self.factor = min(max(self.factor * by, LEAST), self.ceiling)
        self._since, self._clean, self._sound = 0, 0, 0

    def stay(self) -> None:
        """The rate was to blame for the last fall: it may not grow again."""
        self.ceiling = self.factor

    def excuse(self) -> None:
        """The rate was not to blame for the last fall: go on as before it, without a warmup."""
        self.factor, self.ceiling, troubled = self._before
        self._troubled = list(troubled)
        # A factor that was still growing goes on.
        self._since = None if self.factor >= self.ceiling and not troubled else self.warmup_steps
        self._clean = self._sound = 0

    def recover(self) -> None:
        """Go on at the ceiling, without a warmup: the rate was not to blame."""
        self.factor, self._since, self._clean, self._sound = self.ceiling, None, 0, 0

    def step(self, is_clean: bool) -> None:
        """A step is over.

        Args:
            is_clean: whether nothing was wrong with it.
        """
        if self._since is None:
            return
        self._since += 1
        if not is_clean:
            self._clean = self._sound = 0
            return
        self._sound += 1
        if self._sound >= MEMORY:
            self._troubled.clear()
        self._clean += 1
        if self._clean >= GROWTH and self.factor < self.ceiling:
            self.factor, self._clean = min(2 * self.factor, self.ceiling), 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as plain numbers."""
        return {
            "factor": self.factor, "ceiling": self.ceiling, "troubled": list(self._troubled), "since": self._since,
            "clean": self._clean, "sound": self._sound, "before": [*self._before[:2], list(self._before[2])],
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.factor, self.ceiling = float(state["factor"]), float(state["ceiling"])
        self._troubled = [float(factor) for factor in state["troubled"]]
        self._since = None if state["since"] is None else int(state["since"])
        self._clean, self._sound = int(state["clean"]), int(state["sound"])
        factor, ceiling, troubled = state["before"]
        self._before = (float(factor), float(ceiling), [float(one) for one in troubled])

"""Whether a young training began badly: signs that it is worse than untrained, or was thrown off its course.

    high    it has learnt nothing yet, and for `HIGH` steps the loss is far above that of the first step, or not finite
    stuck   it has learnt nothing in half of the early steps: the loss is no better than the best constant answer, does
            not fall, and was once far above that of the first step
    vain    the weights have doubled, and the loss stays at that of the best constant answer, and does not fall
    rate    steps have become shorter at once, by `DROP` for the same rate and the same gradients: until now the rate
            was higher than planned, and the weights are what that made of them

A rate that is only low shows none: its loss stays where it began, or falls.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal

Sign = Literal["high", "stuck", "vain", "rate"]

HIGH = 6
"""Steps in a row with a loss far above the first."""
FAR = 0.25
"""What is far above the first loss, as a share of it."""
MARGIN = 0.02
"""The share of the constant answer's loss by which a loss is better than it, or falls."""
VAIN = 0.05
"""The share of the constant answer's loss by which weights that have doubled should be better than it."""
GROWN = 2.0
"""Times their first norm; at sound rates weights grow by less than a half while a training is young."""
LEARNT = 0.1
"""The share of the first loss by which the average is below it once something was learnt."""
FEWEST = 10
DROP, EXPLAINED = math.log(3.0), math.log(2.0)
"""How much shorter steps become, and how much of that smaller gradients may explain."""
SHORT, LONG = 3, 5
"""Short steps in a row, after so many long ones at least."""


class Beginning:
    """Watches the first steps.

    Args:
        early_steps: steps that are early; twice as many while nothing is learnt.
        trivial: gives the loss of the best constant answer, None where nobody knows; called once, when it is needed.

    Attributes:
        has_learnt: whether the loss was ever well below the first.
    """

    def __init__(self, early_steps: int, trivial: Callable[[], float | None]) -> None:
        self.early_steps, self._trivial = early_steps, trivial
        self.first_loss: float | None = None
        self._asked = False
        self._constant: float | None = None
        self._first_size = 0.0
        self._recent: deque[float] = deque(maxlen=max(early_steps // 2, FEWEST))
        self._lengths: deque[float] = deque(maxlen=16)
        self._norms: deque[float] = deque(maxlen=16)
        self.restart()

    def restart(self) -> None:
        """The run begins anew; what it began with is known."""
        self._high, self._peak, self._average = 0, -math.inf, math.nan
        self.has_learnt = False
        for past in (self._recent, self._lengths, self._norms):
            past.clear()

    def is_young(self, step: int) -> bool:
        """Whether a training is, after so many steps."""
        return step <= self.early_steps * (1 if self.has_learnt else 2)

    def see(
        self, step: int, loss: float, is_bad: bool = False, length: float = 0.0, norm: float = 0.0, size: float = 0.0
    ) -> Sign | None:  # fmt: skip
        """Look at a step.

        Args:
            step: its number, from 1.
            loss: mean over all ranks; may be anything.
            is_bad: whether something acute was seen in it.
            length: of its update, for a rate of 1; 0 where it is not known.
            norm: of its gradient.
            size: the norm of all weights; 0 where it is not known.

        Returns:
            The sign of a bad start; None where there is none, or the training is no longer young.
        """
        if not self.is_young(step):
            return None
        if self.first_loss is None and math.isfinite(loss):
            self.first_loss = loss
        self._high = self._high + 1 if self.is_above(loss) else 0
        if math.isfinite(loss) and not is_bad:
            self._follow(loss)
        if not self.has_learnt and self._high >= HIGH:
            return "high"
        if 0 < length < math.inf and 0 < norm < math.inf:
            self._lengths.append(math.log(length))
            self._norms.append(math.log(norm))
            if self._was_too_fast():
                return "rate"
        if self._is_in_vain(size):
            return "vain"
        return "stuck" if self._is_stuck() else None

    def is_above(self, loss: float) -> bool:
        """Whether a loss is far above that of the first step."""
        if self.first_loss is None:
            return not math.isfinite(loss)
        return not loss <= self.first_loss + FAR * abs(self.first_loss)

    def _follow(self, loss: float) -> None:
        assert self.first_loss is not None
        self._peak = max(self._peak, loss)
        self._recent.append(loss)
        self._average = loss if math.isnan(self._average) else 0.8 * self._average + 0.2 * loss
        self.has_learnt |= self._average < self.first_loss - LEARNT * abs(self.first_loss)

    def _was_too_fast(self) -> bool:
        if len(self._lengths) < SHORT + LONG:
            return False
        lengths, norms = list(self._lengths), list(self._norms)
        drop = min(lengths[:-SHORT]) - max(lengths[-SHORT:])
        smaller = statistics.median(norms[:-SHORT]) - statistics.median(norms[-SHORT:])
        return drop > DROP and smaller < EXPLAINED

    def _is_stuck(self) -> bool:
        if self.has_learnt or not self._is_full or not self.is_above(self._peak):
            return False
        return self._is_trivial(MARGIN) and self._stands_still()

    def _is_in_vain(self, size: float) -> bool:
        if self._first_size <= 0 and size < math.inf:
            self._first_size = size
        has_grown = 0 < GROWN * self._first_size <= size < math.inf
        if not has_grown or not self._is_full or not self._is_trivial(VAIN):
            return False
        self.has_learnt = False  # frequencies only
        return self._stands_still()

    @property
    def _is_full(self) -> bool:
        return len(self._recent) == self._recent.maxlen

    def _is_trivial(self, margin: float) -> bool:
        """Whether the last losses are no better than the best constant answer's, by that share of it."""
        if not self._asked:
            self._constant, self._asked = self._trivial(), True
        if self._constant is None:
            return False
        return statistics.median(self._recent) >= self._constant - margin * abs(self._constant)

    def _stands_still(self) -> bool:
        assert self._constant is not None
        return _fall(self._recent) < MARGIN * abs(self._constant)

    def state_dict(self) -> dict[str, Any]:
        """What was seen, as plain numbers."""
        return {
            "first_loss": self.first_loss, "high": self._high, "peak": self._peak, "average": self._average,
            "has_learnt": self.has_learnt, "recent": list(self._recent), "lengths": list(self._lengths),
            "norms": list(self._norms), "first_size": self._first_size,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.first_loss, self._high, self._peak = state["first_loss"], int(state["high"]), float(state["peak"])
        self._average, self.has_learnt = float(state["average"]), bool(state["has_learnt"])
        self._first_size = float(state["first_size"])
        for name, past in (("recent", self._recent), ("lengths", self._lengths), ("norms", self._norms)):
            past.clear()
            past.extend(state[name])


def _fall(values: deque[float]) -> float:
    """By how much values fall from the first to the last, along the line of least squares."""
    size = len(values)
    middle, mean = (size - 1) / 2, sum(values) / size
    slope = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return -slope * (size - 1) / max(sum((i - middle) ** 2 for i in range(size)), 1e-30)

"""Whether a noisy series, of which less is better, still improves.

Where the series shows no noise, the usual count decides: a value is an improvement if it is below the best by more
than the threshold, and `patience` values without one are a plateau.

In noise that count is wrong, for one lucky value is a best that lasts. There it is only the first of three conditions.
Lines through the last values, over windows of many lengths, tell how fast the series falls and how sure that is:

- the fall has ended: it is surely slower than the past lets expect;
- none can be seen, or none that the threshold counts.

So the window is as long as the noise requires. A plateau is found when the data exclude that the fall goes on, not
when they fail to show it; and a fall that can be seen and keeps its pace is no plateau, however slow.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

from ava.optimization.learning_rate.adaptation.expectation import Expectation, weight
from ava.optimization.learning_rate.adaptation.noise import Noise, NoiseMemory
from ava.optimization.learning_rate.adaptation.pyramid import LENGTH, Pyramid
from ava.optimization.learning_rate.adaptation.trend import Trend, fit, is_bent, least_error, proved_fall
from ava.optimization.learning_rate.adaptation.zigzag import TRUSTED, Zigzag

Verdict = Literal["plateau", "improvement"]

_SIZES = (6, 8, 11, 16, 22, LENGTH)
"""Lengths of the windows on the values themselves, in values; on longer blocks, the last two, in blocks."""
_LONG = 16
"""A window as long as this speaks for itself: a rise in it is no accident, and a shorter one is not needed."""
_FIRST = 4
"""Values whose mean is where the series began."""
_SLOWED = 0.65
"""The share of the expected fall below which the fall has ended."""
_SMOOTH = 0.7
"""Steps upwards that differ by no more than this share are a rise, not an accident."""
_UNSEEN, _NEVER_SEEN = 1 / 2000, 1 / 900
"""Standard deviations per value: no slower fall is looked for, where the past lets expect little; where it never
showed one."""
_SEEN, _EXCLUDED, _PROVED, _RISING = 1.5, 2.5, 4.0, 6.0
"""Standard errors: that show a fall, exclude one, make it a reason to speed up; a rise."""
_EARLY, _REMEMBERED = 4.5, 5.5
"""Those that make a fall a measure for the future: fewer while the noise is unknown and its worst is assumed."""


class Judge:
    """Sees the values one by one.

    Args:
        patience: values without an improvement that make a plateau, or with one that make a steady improvement.
        threshold: what an improvement has to exceed.
        relative: whether that is a share of the best value.

    Attributes:
        smoothed: the line's height at the last value; where there is no noise, the last value.
        noise: standard deviation of one value about the line.
    """

    def __init__(self, patience: int, threshold: float, relative: bool) -> None:
        self.patience, self.threshold, self.relative = patience, threshold, relative
        self.smoothed = self.noise = 0.0
        self._best: float | None = None
        self._num_bad = self._num_good = self._time = self._since = 0
        self._zigzag, self._pyramid = Zigzag(), Pyramid()
        self._memory, self._expectation = NoiseMemory(), Expectation()
        self._first: list[float] = []

    def observe(self, value: float, resting: bool = False) -> Verdict | None:
        """Take in the next value.

        Args:
            value: a finite number.
            resting: whether it comes too soon after a change to be judged.

        Returns:
            What can be said of the values since the last `restart`.
        """
        self._time += 1
        if self._time <= _FIRST:
            self._first.append(value)
        self._count(value)
        self._zigzag.add(value)
        if resting:
            self._num_bad = self._num_good = 0
            self.smoothed = value
            return None
        seen = self._look(self._pyramid.add(value))
        if not self._is_believed():
            return seen
        self.smoothed, self.noise = value, 0.0
        return self._counted()

    def restart(self, verdict: Verdict) -> None:
        """After it was acted upon, judge by the same best and the same past.

        Args:
            verdict: a plateau that was answered is over, and only what comes from now on counts. What a steady
                improvement was seen in shows no second one, but goes on showing that the series falls.
        """
        self._num_bad = self._num_good = 0
        self._since = self._time
        if verdict == "plateau":
            self._pyramid.clear()

    def _count(self, value: float) -> None:
        if self._best is None:
            self._best = value
        elif value < self._best - self._margin(self._best):
            self._best, self._num_bad, self._num_good = value, 0, self._num_good + 1
        else:
            self._num_bad, self._num_good = self._num_bad + 1, 0

    def _margin(self, value: float) -> float:
        return self.threshold * abs(value) if self.relative else self.threshold

    def _counted(self) -> Verdict | None:
        """The usual count's verdict."""
        if self._num_bad >= self.patience:
            return "plateau"
        return "improvement" if self._num_good >= self.patience else None

    def _is_believed(self) -> bool:
        """Whether the usual count can be believed: where there is no noise, and no steady fall below the threshold."""
        if self._num_bad < self.patience:
            return self._zigzag.is_calm or not self._zigzag.has_turned
        if self._zigzag.is_straight or not self._zigzag.is_calm:
            return self._zigzag.is_calm
        values = self._pyramid.levels[0]
        steps = [later - earlier for earlier, later in pairwise(values[-self.patience - 1 :])]
        if min(steps, default=0.0) >= 0.0:
            return all(abs(b - a) <= _SMOOTH * max(a, b) for a, b in pairwise(steps))
        recent = values[-TRUSTED:]
        fall = (recent[0] - recent[-1]) / max(len(recent) - 1, 1)
        return fall <= max(_SLOWED * self._expectation.fall(self._time - len(recent) / 2), 0.0)

    def _look(self, height: int) -> Verdict | None:
        """Look at the windows that are due on the lowest `height` levels, the shortest first."""
        verdict: Verdict | None = None
        for level in range(height):
            blocks, count = self._pyramid.levels[level], self._pyramid.counts[level]
            for size in _SIZES if level == 0 else _SIZES[-2:]:
                if len(blocks) < size:
                    break
                if count % max(1, size // 8) == 0 and size << level >= self.patience:
                    verdict = self._judge(blocks[-size:], level) or verdict
                    if verdict == "plateau":
                        return verdict
        return verdict

    def _judge(self, values: list[float], level: int) -> Verdict | None:
        """The verdict of one window of block means."""
        size, block = len(values), 1 << level
        known = self._memory.at(level)
        expected = _SLOWED * self._expectation.fall(self._time - (size * block - 1) / 2)
        least = _UNSEEN if self._expectation.factor > 0.0 else _NEVER_SEEN
        slowest = max(expected, least * self.noise) * block
        reach = max(slowest, self._margin(values[-1]) / size)
        if size < LENGTH and known.is_known and _EXCLUDED * least_error(size, known) > reach:
            return None
        trend = fit(values, known)
        self._learn(values, trend, level, known)
        if self._num_bad >= self.patience and self._is_plateau(trend, size, slowest):
            return "plateau"
        is_new = size * block <= self._time - self._since
        return "improvement" if is_new and self._is_improvement(trend, values, known) else None

    def _is_plateau(self, trend: Trend, size: int, slowest: float) -> bool:
        if size >= _LONG and trend.slope > trend.doubt(_RISING):
            return True
        at_most = max(-trend.slope, 0.0) + trend.doubt(_EXCLUDED)
        is_seen = -trend.slope > trend.doubt(_SEEN)
        is_negligible = at_most * size < self._margin(trend.end)
        if at_most < slowest:
            return is_negligible or not is_seen
        return self._expectation.factor == 0.0 and is_negligible and not is_seen

    def _is_improvement(self, trend: Trend, values: list[float], known: Noise) -> bool:
        """Whether the values surely fall by more than the threshold, the later half of them no less."""
        size = len(values)
        if size < _LONG or -trend.slope * size <= self._margin(trend.end) or -trend.slope <= trend.doubt(_PROVED):
            return False
        return fit(values[size // 2 :], known).slope < trend.slope / 2

    def _learn(self, values: list[float], trend: Trend, level: int, known: Noise) -> None:
        size, block = len(values), 1 << level
        if level == 0:
            self.smoothed, self.noise = trend.end, math.sqrt(trend.variance)
            if size == LENGTH:
                self._learn_noise(values, trend)
        begin, end = self._time - size * block + 1, self._time + 1
        if -trend.slope / block * weight(begin, end) > self._expectation.factor:
            z = _REMEMBERED if known.is_known else _EARLY
            self._expectation.learn(proved_fall(values, trend.slope, known, z) / block, begin, end)

    def _learn_noise(self, values: list[float], trend: Trend) -> None:
        """Learn from the last values, and judge by that how far the series has fallen since it began."""
        # What strays from a line because the series bends there would be taken for noise, at first above all.
        if not is_bent(values, trend.variance) and (trend.is_level or self._time > 2 * LENGTH):
            self._memory.learn(trend.variance, trend.correlation)
        known = self._memory.at(0)
        middle = self._time - (LENGTH - 1) / 2
        if known.is_known and middle > _FIRST:
            # Noise shrinks as the loss does: twice its size is allowed for the first values.
            doubt = 2 * _REMEMBERED * math.sqrt(known.variance)
            fall = sum(self._first) / _FIRST - sum(values) / LENGTH - doubt
            begin = (_FIRST + 1) / 2
            self._expectation.learn(fall / (middle - begin), begin, middle)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "smoothed": self.smoothed, "noise": self.noise, "best": self._best, "num_bad": self._num_bad,
            "num_good": self._num_good, "time": self._time, "since": self._since, "expected": self._expectation.factor,
            "first": list(self._first), "zigzag": self._zigzag.state_dict(), "pyramid": self._pyramid.state_dict(),
            "memory": self._memory.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from them."""
        self._since = state["since"]
        self.smoothed, self.noise, self._best = state["smoothed"], state["noise"], state["best"]
        self._num_bad, self._num_good, self._time = state["num_bad"], state["num_good"], state["time"]
        self._expectation, self._first = Expectation(state["expected"]), list(state["first"])
        self._zigzag.load_state_dict(state["zigzag"])
        self._pyramid.load_state_dict(state["pyramid"])
        self._memory.load_state_dict(state["memory"])

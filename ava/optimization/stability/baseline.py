"""What a signal is expected to be: level, trend and deviation of its logarithm, and how far it has moved for good.

The level follows fast and along a line that flattens (Holt's method with a damped trend), so that neither the warmup
nor the fall of the first steps looks like noise. The deviation is that of the surprises, the observations less what was
expected, around their own mean: where the level lags all the same, the lag is not taken for noise. All take a surprise
as at most `WINSOR` deviations, so that one outlier moves them little, and weigh the n-th observation by 3/n at first,
which soon forgets how it began.

What moves slowly enough to be followed is seen against a reference instead, which falls with the level and hardly
rises: a CUSUM sums by how much the signal lies above it, beyond noise and beyond what sound trainings do. Another one
sums surprises beyond `drift` deviations: it sees in a few steps that each of them is a little too high. That is told
for a few steps; whether it stays is the first sum's question.

    residual  = x - (level + trend)
    deviation = sqrt(max(variance - bias^2, variance / 4, floor^2))
    level    <- level + trend + a * clip(residual)       a = max(3/n, 1/8)
    trend    <- 0.9 * (trend + a^2 * clip(residual))
    bias     <- bias + a * (clip(residual) - bias)
    variance <- variance + w * (clip(residual)^2 - variance)     w = max(3/n, 1/150)
    reference <- level where that is lower, else reference + (level - reference) / 200
    cusum    <- max(0, cusum + min((x - reference - slack) / deviation - DRIFT, CAP))
    shift    <- max(0, shift + min(residual / max(sqrt(variance), floor) - drift, CAP))

Where a sum is beyond `SUSPECT` or `DOUBTFUL` nothing is learnt until it falls or the signal has moved. Surprises are
not summed while an alarm lasts: it tells already what they would tell again after it.

Nor is learnt where the signal has all but gone from one step to the next (`gone`), as gradients that vanish: when they
come back they are what they were before. After `HELD` steps at most the lower level is the new normal. A level that
falls step by step is followed: there the surprises have a mean, `bias`.

An alarm starts at `sigmas` deviations, more where outliers are frequent, and ends below half of that. While it lasts
nothing is learnt; after `patience` steps the new level is taken for the new normal, and learning starts anew.

Reference: Page 1954, "Continuous inspection schemes", https://doi.org/10.1093/biomet/41.1-2.100; Holt 2004 (1957),
"Forecasting seasonals and trends by exponentially weighted moving averages",
https://doi.org/10.1016/j.ijforecast.2003.09.015; Gardner & McKenzie 1985, "Forecasting trends in time series",
https://doi.org/10.1287/mnsc.31.10.1237
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ava.optimization.stability.operands import clamp, maximum, minimum, sqrt, where

WARM = 12
"""Observations before which only an absurd jump is an outlier."""
WINSOR = 3.0
FASTEST, SLOW, SLOWEST = 1 / 8, 1 / 150, 1 / 200
"""Least weights of an observation: in the level, in the variance, in a reference that rises."""
DAMPING = 0.9
"""What is left of a trend a step later: one learnt in the warmup is gone soon after it."""
UNBIASED = 0.25
"""Share of the variance that is noise at least, whatever the mean surprise."""
PRIOR_DEVIATION, PRIOR_COUNT = 0.2, 6.0
"""What the deviation is taken for at first, and how many observations that counts as."""
DRIFT, CAP, SUSPECT, MOVED = 1.0, 3.0, 5.0, 20.0
"""Of the CUSUM: what is subtracted in each step, the most that a step adds, where learning stops to wait, and
where the signal has moved."""
DOUBTFUL, SHIFTED, TOLD = 4.0, 8.0, 5.0
"""Of the sum of surprises: where learning stops to wait, where the signal has shifted, and the further steps for which
that is told, fewer than make it persistent."""
TIGHTEST = 0.6
"""Share of `sigmas` that is enough for a rise above `most`."""
HELD, HELD_PER_STEP = 500.0, 4.0
"""Steps with no more than a trace of a signal, after which that is the new normal: at most, and for each step that
the level was learnt from."""
CERTAIN = 0.8
"""Share of an absurd jump to which the limit is widened at most."""
TAIL_STEP, TAIL_PAST, TAIL_MOST = 2.0, 1 - 1 / 150, 10.0
"""Deviations by which an outlier widens the limit, what is left of that a step later, and the most there is: noise
whose outliers come every few dozen steps (a short last batch of an epoch) soon alarms no more."""
SLOTS = ("count", "level", "trend", "variance", "reference", "cusum", "alarm", "frozen", "moved", "tail",
         "bias", "shift")  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """What differs between signals, all in units of their logarithm.

    Attributes:
        floor: the least deviation, so that a signal almost without noise does not alarm about nothing.
        least: the least rise that is an outlier, however little noise there is.
        jump: a rise that is absurd even while little is known.
        most: a rise for which fewer deviations are enough (`TIGHTEST`).
        drift: deviations by which surprises may exceed the expectation again and again.
        slack: how far above its reference the signal may stay for good.
        early_slack: the same while little is known.
        gone: a fall within one step from which a return is expected.
    """

    floor: float
    least: float
    jump: float
    most: float
    drift: float
    slack: float
    early_slack: float
    gone: float


class Baseline:
    """One signal's statistics within one step: read from memory, asked, changed, written back.

    Every number is a Python float or a 0-dim tensor; the arithmetic is the same.

    Args:
        kind: the signal's constants.
        slots: values in the order of `SLOTS`.
    """

    __slots__ = (*SLOTS, "deviation", "expected", "is_known", "is_typical", "is_warm", "kind", "limit", "rare",
                 "residual", "shifted", "was_known", "x", "z")  # fmt: skip

    def __init__(self, kind: Kind, slots: list[Any]) -> None:
        self.kind = kind
        (self.count, self.level, self.trend, self.variance, self.reference, self.cusum, self.alarm, self.frozen,
         self.moved, self.tail, self.bias, self.shift) = slots  # fmt: skip

    def values(self) -> list[Any]:
        """The slots, in the order of `SLOTS`."""
        return [self.count, self.level, self.trend, self.variance, self.reference, self.cusum, self.alarm, self.frozen,
                self.moved, self.tail, self.bias, self.shift]  # fmt: skip

    def loosen(self, is_new: Any) -> None:
        """Where the regime is new: keep the level, and learn afresh what lies around it."""
        if is_new is False:
            return
        self.count = where(is_new, minimum(self.count, 1.0), self.count)
        self.trend, self.bias = where(is_new, 0.0, self.trend), where(is_new, 0.0, self.bias)
        self.variance = where(is_new, maximum(self.variance, PRIOR_DEVIATION**2), self.variance)
        self.reference = where(is_new, self.level, self.reference)
        self.cusum, self.shift = where(is_new, 0.0, self.cusum), where(is_new, 0.0, self.shift)

    def relearn(self, is_new: Any) -> None:
        """Where the regime is another: keep everything, and follow faster from here."""
        if is_new is False:
            return
        self.count = where(is_new, minimum(self.count, float(WARM)), self.count)

    def look(self, x: Any, is_known: Any, width: Any = 1.0) -> None:
        """Compare an observation with what was expected; nothing changes yet.

        Args:
            x: the observation's logarithm; any finite number where it is not known.
            is_known: whether there is one.
            width: times the usual deviation, of a step that is not like the others; above 1 it is judged, not learnt.
        """
        self.is_known, self.is_typical = is_known, is_known & (width <= 1.0)
        started = self.was_known = self.count > 0
        self.expected = where(started, self.level + self.trend, x)
        self.is_warm = self.count >= WARM
        prior = where(started, self.variance, PRIOR_DEVIATION**2)
        self.variance = prior
        noise = maximum(prior - self.bias * self.bias, UNBIASED * prior)
        self.deviation = width * sqrt(maximum(noise, self.kind.floor**2))
        self.x = where(is_known, x, self.expected)
        self.residual = self.x - self.expected
        self.z = self.residual / self.deviation

    def bound(self, sigmas: Any, rare: Any) -> None:
        """Decide above which rise it is an outlier: `sigmas` deviations, more in a heavy tail, fewer above `most`.

        Args:
            sigmas: deviations at which alarms start.
            rare: deviations beyond which an observation belongs to the tail. It does not depend on the sensitivity,
                else a smaller one would find fewer outliers in the tail, and alarm earlier than a larger one.
        """
        kind, usual = self.kind, self._usual(sigmas)
        self.rare = self._usual(rare)
        wide = minimum(usual + self.tail * self.deviation, maximum(usual, CERTAIN * kind.jump))
        self.limit = where(self.is_warm, maximum(wide, kind.least), maximum(usual, kind.jump))

    def _usual(self, sigmas: Any) -> Any:
        wanted = sigmas * self.deviation
        return minimum(wanted, maximum(self.kind.most, TIGHTEST * wanted))

    def exceeds(self, share: float = 1.0) -> Any:
        """Whether the observation is an outlier, or that share of one; while little is known only a whole one."""
        return self.residual > where(self.is_warm, share * self.limit, self.limit)

    def learn(self, starts: Any, patience: float) -> None:
        """Take up the observation, raise or end the alarm.

        Args:
            starts: whether an alarm starts, if there is none.
            patience: steps after which an alarm's level is accepted.
        """
        self.shifted = where(self.shift >= SHIFTED, 1.0, 0.0)
        if self.is_known is False:
            return
        lasts = self.alarm > 0
        stays = lasts if lasts is False else lasts & self.exceeds(0.5)
        is_rare = self.is_typical & (self.alarm <= 0) & (self.residual > self.rare) & self.is_warm
        alarm = where(self.is_known, where(starts | stays, 1.0, 0.0), self.alarm)
        self._sum()
        self._sum_surprises(alarm > 0)
        started = self.count > 0
        is_troubled = (alarm > 0) | (self.cusum > SUSPECT) | (self.shift > DOUBTFUL)
        self._freeze(is_troubled, self._has_gone())
        held = minimum(HELD_PER_STEP * self.count, HELD)
        accepted = self.is_known & ((self.frozen > patience) | (self.frozen < -held))
        tail = minimum(where(is_rare, self.tail + TAIL_STEP, self.tail * TAIL_PAST), TAIL_MOST)
        self.tail = where(self.is_typical & (alarm <= 0) | is_rare, tail, self.tail)
        self.alarm = alarm
        learns = self.is_typical & (self.frozen == 0)
        self._average(learns)
        self._refer(started, learns)
        self._begin(accepted)

    def _freeze(self, is_troubled: Any, has_gone: Any) -> None:
        """Count the steps for which nothing is learnt: upwards for trouble, downwards for a signal that has gone."""
        counted = where(is_troubled, maximum(self.frozen, 0.0) + 1.0, 0.0)
        counted = where(has_gone, minimum(self.frozen, 0.0) - 1.0, counted)
        self.frozen = where(self.is_known, counted, self.frozen)

    def _has_gone(self) -> Any:
        """Whether there is all but nothing left of a signal that was where it was expected."""
        fall = where(self.frozen < 0, 0.5, 1.0) * maximum(self.kind.gone, WINSOR * self.deviation)
        return self.is_known & self.is_warm & (self.residual < -fall) & (self.bias > -self.deviation)

    def _sum(self) -> None:
        """CUSUM over the reference."""
        above = where(self.was_known, self.x - self.reference, 0.0)
        excess = where(self.is_warm, above - self.kind.slack, above - self.kind.early_slack)
        step = minimum(excess / self.deviation - DRIFT, CAP)
        self.cusum = where(self.is_typical, clamp(self.cusum + step, 0.0, 1.5 * MOVED), self.cusum)
        self.moved = where(self.cusum >= MOVED, 1.0, 0.0)

    def _sum_surprises(self, alarms: Any) -> None:
        """CUSUM over the expectation; where it has shifted, a count of the steps for which that is told."""
        above = self.residual / sqrt(maximum(self.variance, self.kind.floor**2)) - self.kind.drift
        summed = where(alarms, self.shift, clamp(self.shift + minimum(above, CAP), 0.0, SHIFTED))
        told = where((above > 0) & (self.shift < SHIFTED + TOLD), self.shift + 1.0, 0.0)
        shift = where(self.shift >= SHIFTED, told, summed)
        self.shift = where(self.is_typical & self.is_warm, shift, self.shift)
        self.shifted = where(self.shift >= SHIFTED, 1.0, 0.0)

    def _refer(self, started: Any, follows: Any) -> None:
        """The reference falls with the level at once, and rises slowly; it stands still while something is wrong."""
        above = self.level - self.reference
        risen = where(started & (above > 0), self.reference + SLOWEST * above, self.level)
        self.reference = where(follows, risen, self.reference)

    def _average(self, learns: Any) -> None:
        if learns is False:
            return
        limit = WINSOR * self.deviation
        clipped = clamp(self.residual, -limit, limit)
        fast = minimum(maximum(3.0 / (self.count + 3.0), FASTEST), 0.5)
        slow = maximum(3.0 / (self.count + PRIOR_COUNT), SLOW)
        self.level = where(learns, self.expected + fast * clipped, self.level)
        self.trend = where(learns, DAMPING * (self.trend + fast * fast * clipped), self.trend)
        self.variance = where(learns, self.variance + slow * (clipped * clipped - self.variance), self.variance)
        self.bias = where(learns, self.bias + fast * (clipped - self.bias), self.bias)
        self.count = where(learns, self.count + 1.0, self.count)

    def _begin(self, anew: Any) -> None:
        """Where the regime changed: this observation is the first."""
        if anew is False:
            return
        self.alarm, self.count = where(anew, 0.0, self.alarm), where(anew, 1.0, self.count)
        self.level, self.reference = where(anew, self.x, self.level), where(anew, self.x, self.reference)
        self.trend, self.cusum = where(anew, 0.0, self.trend), where(anew, 0.0, self.cusum)
        self.bias, self.shift = where(anew, 0.0, self.bias), where(anew, 0.0, self.shift)
        self.moved, self.frozen = where(anew, 0.0, self.moved), where(anew, 0.0, self.frozen)
        self.variance = where(anew, PRIOR_DEVIATION**2, self.variance)

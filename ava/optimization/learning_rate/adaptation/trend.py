"""The trend of a few values, and how far it can be trusted.

A straight line is fitted to y_1 .. y_n by least squares, with x_i = i - (n + 1) / 2. Its slope is the trend. The error
comes from the residuals of that very fit and from what is known of the noise, whichever is more: so it adapts to any
noise, and an outlier widens the error more than it bends the line. Noise that is correlated between neighbours sways a
line further: with variance v and correlation r

    slope = sum(x y) / S,  S = sum(x^2),  error^2 = v / S^2 * sum over i, j of (x_i x_j r^|i - j|)
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from operator import mul
from typing import NamedTuple

from ava.optimization.learning_rate.adaptation.noise import MOST_CORRELATED, Noise

_ASSUMED, _HIGHEST = 0.9, 0.95
"""The correlation that is assumed where none is known yet, and the highest one that second differences can tell from
a random walk's."""


_MEDIAN = 0.6745
"""The median of the absolute values of a standard normal variable."""
_BENT = 40.0
"""Noise with the correlation 0.95 has five times the variance of its second differences; eight times that is a bend."""


class Trend(NamedTuple):
    """A straight line through the last n values.

    Attributes:
        slope: change from value to value.
        error: standard error of the slope.
        freedom: the number of independent residuals behind the error.
        variance: of one value about the line, from the residuals.
        correlation: of neighbouring residuals, without its bias.
        end: the line's height at the last value.
        is_level: whether the line explains less than the noise does.
    """

    slope: float
    error: float
    freedom: float
    variance: float
    correlation: float
    end: float
    is_level: bool

    def doubt(self, z: float) -> float:
        """What the slope may be wrong by, at `z` standard deviations of a normal distribution."""
        return _widened(z, self.freedom) * self.error


def fit(values: list[float], known: Noise) -> Trend:
    """The trend of equally spaced values, the newest last; at least six.

    Args:
        values: what the line goes through.
        known: the noise, as former values told it.
    """
    n = len(values)
    x, total = _centred(n)
    mean = sum(values) / n
    slope = sum(map(mul, x, values)) / total
    residuals = [y - mean - slope * t for t, y in zip(x, values, strict=True)]
    squares = sum(map(mul, residuals, residuals))
    if squares <= 1e-24 * n * mean * mean:
        # Rounding, not noise.
        squares = measured = 0.0
    else:
        measured = sum(map(mul, residuals, residuals[1:])) / squares
        measured += (2 + 4 * measured) / n
    r = _correlation(measured, n, known)
    # A line follows correlated noise, so that less of it is left in the residuals.
    variance = squares / max(n - 2 * (1 + r) / (1 - r), n / 4)
    error = math.sqrt(max(variance, known.variance) * _sway(n, round(r, 2)))
    freedom = max((n - 2) * (1 - r), 1.0)
    is_level = slope * slope * total <= squares
    return Trend(slope, error, freedom, variance, measured, mean + slope * x[-1], is_level)


def least_error(n: int, known: Noise) -> float:
    """The standard error of the slope through n values, by the known noise alone."""
    return math.sqrt(known.variance * _sway(n, round(known.correlation, 2)))


def proved_fall(values: list[float], slope: float, known: Noise, z: float) -> float:
    """How fast values surely fall on average, at `z` standard deviations; negative if they may rise.

    The noise is told by second differences, which a bent curve hardly moves:
    their variance is v (6 - 8 r + 2 r^2).
    """
    r = min(known.correlation + 1 / math.sqrt(known.num_values), _HIGHEST) if known.is_known else _ASSUMED
    seconds = [a - 2 * b + c for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    n = len(seconds)
    variance = sum(map(mul, seconds, seconds)) / n / (6 - 8 * r + 2 * r * r)
    error = math.sqrt(max(variance, known.variance) * _sway(n + 2, round(r, 2)))
    return -slope - _widened(z, n) * error


def is_bent(values: list[float], variance: float) -> bool:
    """Whether the values stray from a line further than any noise would take them whose steps are as small."""
    steps = sorted(abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False))
    typical = steps[len(steps) // 2] / _MEDIAN
    return variance > _BENT * typical * typical


def _correlation(measured: float, n: int, known: Noise) -> float:
    """The correlation of n residuals and that of former ones, and a standard error or two more to be safe."""
    together = n + known.num_values
    r = (n * measured + known.num_values * known.correlation) / together
    spread = math.sqrt(max(1 - r * r, 0.0) / together)
    return min(max(r + (1 if known.is_known else 2) * spread, 0.0), MOST_CORRELATED)


@functools.cache
def _centred(n: int) -> tuple[list[float], float]:
    """The places of n values about their middle, and the sum of their squares."""
    return [i - (n - 1) / 2 for i in range(n)], n * (n * n - 1) / 12


@functools.cache
def _sway(n: int, r: float) -> float:
    """Variance of the slope through n values of noise with unit variance and correlation r."""
    x, total = _centred(n)
    double_sum, before = total, 0.0
    for earlier, later in pairwise(x):
        before = r * (before + earlier)
        double_sum += 2 * later * before
    return double_sum / (total * total)


def _widened(z: float, freedom: float) -> float:
    """Student's quantile where the normal distribution has `z` (the expansion of Cornish and Fisher)."""
    first = (z * z + 1) / (4 * freedom)
    second = (5 * z**4 + 16 * z * z + 3) / (96 * freedom * freedom)
    return z * (1 + first + second)

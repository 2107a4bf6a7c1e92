"""What trainings of several objectives are worth beside those by the plain sum, with an interval over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ava.bench.multitask_trainings import SIGNS

CONFIDENCE = 0.95
Scores = Mapping[str, float]
"""Objective -> its metric."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and how far the true mean may lie to either side of it at 95 % confidence."""

    mean: float
    margin: float

    @property
    def verdict(self) -> str:
        """Whether the interval lies above zero, below, or holds it; or that a training came to nothing."""
        if math.isnan(self.mean):
            return "diverged"
        if self.mean - self.margin > 0:
            return "better"
        return "worse" if self.mean + self.margin < 0 else "not shown"


def mean_scores(seeds: Sequence[Scores]) -> dict[str, float]:
    """Each objective's mean over seeds."""
    return {name: statistics.fmean(scores[name] for scores in seeds) for name in SIGNS}


def gain(scores: Scores, base: Scores, scale: Scores) -> float:
    """The mean over objectives of the relative change for the better.

        1/T sum_i s_i (scores_i - base_i) / scale_i

    Args:
        scores: of a training.
        base: of the training that it is compared with.
        scale: what a change is relative to; the base itself, or its mean over seeds.

    Returns:
        0.01 where objectives became better by one per cent in the mean. With s_i = 1 where more of a metric is better,
        and -1 where less is.

    Reference: the Delta_m of Maninis et al. 2019, https://arxiv.org/abs/1904.08918
    """
    return statistics.fmean(sign * (scores[name] - base[name]) / scale[name] for name, sign in SIGNS.items())


def paired_gains(seeds: Sequence[Scores], base: Sequence[Scores]) -> list[float]:
    """The gain of each seed over the base's training of the same seed, relative to the base's means."""
    scale = mean_scores(base)
    return [gain(mine, theirs, scale) for mine, theirs in zip(seeds, base, strict=True)]


def interval(values: Sequence[float]) -> Interval:
    """The mean of paired differences, with Student's t interval; the margin is infinite for a single one."""
    # imported here because it takes a third of a second, which only a finished table should pay; scikit-learn needs it
    from scipy.stats import t as student  # type: ignore[import-untyped]

    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, math.inf)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, float(student.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)) * error)

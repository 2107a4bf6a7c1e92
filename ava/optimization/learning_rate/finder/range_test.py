"""The LR range test: a short training whose learning rate rises exponentially from step to step.

Here is what rate each step has, what is made of its loss, and when to stop; who takes the steps is not known here:

    test = RangeTest(LRFinderConfig())
    while not test.is_over:
        test.take(loss_of_one_step(test.lr))
    test.curve()

Smith 2017, https://arxiv.org/abs/1506.01186.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Literal, get_type_hints

from annotated_types import Ge, Gt, Le

from ava.errors import InputError
from ava.optimization.options import check
from ava.registry import PositiveFloat

Method = Literal["probes", "valley", "steepest", "minimum"]
Stop = Literal["covered", "diverged", "not finite"]
MIN_STEPS = 10
"""Fewer losses make no curve."""


@dataclass(frozen=True)
class LRFinderConfig:
    """What range is tested, and how.

    Args:
        min_lr: the first step's rate.
        max_lr: the last step's.
        num_steps: optimizer steps from one to the other, both included.
        smoothing_factor: weight of the new loss in the moving average that says when to stop, in (0, 1].
        diverge_factor: the test ends where the average exceeds its lowest value so many times.
        method: which suggestion `find` returns; all are reported. "probes" trains for a moment at three rates around
            the valley's (`probes.py`), the others read the curve alone.
        probe_steps: length of each of these trainings, if num_steps is no less.

    Raises:
        InputError: a value is not allowed.
    """

    min_lr: PositiveFloat = 1e-7
    max_lr: PositiveFloat = 10.0
    num_steps: Annotated[int, Ge(MIN_STEPS)] = 100
    smoothing_factor: Annotated[float, Gt(0), Le(1)] = 0.05
    diverge_factor: Annotated[float, Gt(1)] = 4.0
    method: Method = "probes"
    probe_steps: Annotated[int, Ge(MIN_STEPS)] = 50

    def __post_init__(self) -> None:
        annotations = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            object.__setattr__(self, field.name, check(field.name, getattr(self, field.name), annotations[field.name]))
        object.__setattr__(self, "probe_steps", min(self.probe_steps, self.num_steps))
        if self.max_lr <= self.min_lr:
            raise InputError(
                f"must be above min_lr={self.min_lr:g}.", key="max_lr", value=self.max_lr,
                hint="Several powers of ten between them are usual: 1e-7 and 10.",
            )  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """What a range test saw.

    Attributes:
        lr: the rate of each step taken.
        loss: its loss; the last may be infinite or no number.
        smoothed: the bias-corrected moving average of the losses.
        stopped: why there is no further step: the range is "covered", the loss "diverged" or was "not finite".
    """

    lr: tuple[float, ...]
    loss: tuple[float, ...]
    smoothed: tuple[float, ...]
    stopped: Stop


class RangeTest:
    """The rates of a range test's steps, and the losses seen so far.

    Args:
        config: the range.
    """

    def __init__(self, config: LRFinderConfig) -> None:
        self.config = config
        self.lrs = _exponential(config.min_lr, config.max_lr, config.num_steps)
        self._losses: list[float] = []
        self._smoothed: list[float] = []
        self._average = MovingAverage(config.smoothing_factor)
        self._stopped: Stop | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is no further step to take."""
        return self._stopped is not None

    @property
    def lr(self) -> float:
        """The next step's rate, in units of the optimizer's own learning rate."""
        return self.lrs[len(self._losses)]

    def take(self, loss: float) -> bool:
        """Note the loss of the step just taken.

        Args:
            loss: the mean over the step's samples, and over all ranks, so that all of them stop together.

        Returns:
            Whether to go on.
        """
        self._losses.append(loss)
        self._smoothed.append(self._average.take(loss))
        self._stopped = self._judge(loss)
        return self._stopped is None

    def curve(self) -> Curve:
        """What was seen; complete once the test is over."""
        taken = self.lrs[: len(self._losses)]
        return Curve(tuple(taken), tuple(self._losses), tuple(self._smoothed), self._stopped or "covered")

    def _judge(self, loss: float) -> Stop | None:
        if not math.isfinite(loss):
            return "not finite"
        best = min(self._smoothed)
        # The same as `diverge_factor * best` where losses are positive; likelihoods of densities need not be.
        if self._smoothed[-1] > best + (self.config.diverge_factor - 1) * abs(best):
            return "diverged"
        return "covered" if len(self._losses) == len(self.lrs) else None


class MovingAverage:
    """The bias-corrected exponential moving average: m_k <- (1 - w) m_(k-1) + w loss_k, over 1 - (1 - w)^k.

    Args:
        weight: w, of the new loss, in (0, 1].
    """

    def __init__(self, weight: float) -> None:
        self._weight, self._mean, self._rest = weight, 0.0, 1.0

    def take(self, loss: float) -> float:
        """The average with one loss more."""
        self._mean += self._weight * (loss - self._mean)
        self._rest *= 1 - self._weight
        return self._mean / (1 - self._rest)


def _exponential(first: float, last: float, count: int) -> list[float]:
    """`count` rates of a constant ratio, both ends included exactly."""
    ratio = math.log(last / first) / (count - 1)
    return [first, *(first * math.exp(ratio * k) for k in range(1, count - 1)), last]

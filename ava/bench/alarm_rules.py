"""Rules by which others call a step an outlier, to stand beside ours.

Each keeps what its authors' code keeps; what it called an outlier is learnt or not as they do it.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Judge(Protocol):
    """Says whether a step is an outlier, and remembers it afterwards."""

    def is_outlier(self, norm: float, loss: float) -> bool:
        """Whether the step is; changes nothing."""
        ...

    def learn(self, norm: float, loss: float) -> None:
        """Take the step up."""
        ...


class Window:
    """Loss or norm above mean + 6 deviations of the last 128 (once 64 are there).

    Reference: OLMo-core's `SkipStepOptimizer`, https://github.com/allenai/OLMo-core
    """

    def __init__(self, length: int = 128, sigmas: float = 6.0) -> None:
        self.sigmas = sigmas
        self.norms, self.losses = deque[float](maxlen=length), deque[float](maxlen=length)

    def is_outlier(self, norm: float, loss: float) -> bool:
        """Whether either is above its bound."""
        return self._is_above(self.norms, norm) or self._is_above(self.losses, loss)

    def learn(self, norm: float, loss: float) -> None:
        """Every step enters the window, outliers too."""
        self.norms.append(norm)
        self.losses.append(loss)

    def _is_above(self, window: deque[float], value: float) -> bool:
        if len(window) < 64:
            return False
        return value > statistics.fmean(window) + self.sigmas * statistics.stdev(window)


class MovingScore:
    """A norm whose z-score over moving averages is above 2.5; an outlier is learnt as clipped.

    Reference: Kumar et al. 2025 (ZClip), https://arxiv.org/abs/2504.02507
    """

    def __init__(self, sigmas: float = 2.5, alpha: float = 0.97, warmup: int = 25) -> None:
        self.sigmas, self.alpha, self.warmup = sigmas, alpha, warmup
        self.first: list[float] = []
        self.mean, self.variance = 0.0, 0.0

    def is_outlier(self, norm: float, loss: float) -> bool:
        """Whether the norm is."""
        return len(self.first) >= self.warmup and self._score(norm) > self.sigmas

    def learn(self, norm: float, loss: float) -> None:
        """The first norms give the averages to start from."""
        if len(self.first) < self.warmup:
            self.first.append(norm)
            self.mean, self.variance = statistics.fmean(self.first), statistics.pvariance(self.first)
            return
        if (score := self._score(norm)) > self.sigmas:
            norm = self.mean + self.sigmas**2 / score * self.variance**0.5
        self.mean = self.alpha * self.mean + (1 - self.alpha) * norm
        self.variance = self.alpha * self.variance + (1 - self.alpha) * (norm - self.mean) ** 2

    def _score(self, norm: float) -> float:
        return (norm - self.mean) / max(math.sqrt(self.variance), 1e-12)


class Multiple:
    """A loss above twice the mean of the last 100 (once they are there).

    Reference: llm-foundry's `LossSpike` callback, https://github.com/mosaicml/llm-foundry
    """

    def __init__(self, factor: float = 2.0, length: int = 100) -> None:
        self.factor, self.losses = factor, deque[float](maxlen=length)

    def is_outlier(self, norm: float, loss: float) -> bool:
        """Whether the loss is."""
        return len(self.losses) == self.losses.maxlen and loss > self.factor * statistics.fmean(self.losses)

    def learn(self, norm: float, loss: float) -> None:
        """Every loss enters the window."""
        self.losses.append(loss)


@dataclass(frozen=True)
class Rule:
    """A rule by the name under which it is known."""

    name: str
    build: Callable[[], Judge]


RULES = (Rule("6 deviations of 128 (OLMo)", Window), Rule("z-score 2.5 (ZClip)", MovingScore),
         Rule("2 x mean of 100 (llm-foundry)", Multiple))  # fmt: skip

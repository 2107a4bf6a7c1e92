"""The trend of a range test's losses: their mean over a window of rates, the same width however many steps there are.

    trend(x) = sum_k w_k loss_k / sum_k w_k,  w_k = exp(-((x - x_k) / width)^2 / 2),  x = log10 of the rate

A moving average would lag behind by as many steps as it averages over, and so show every feature at too high a rate;
a symmetric window does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
WIDTH = 0.25
"""Standard deviation of the window, in powers of ten of the rate."""
DEVIATIONS_OF_MEDIAN = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


@dataclass(frozen=True)
class Trend:
    """A curve one can read.

    Attributes:
        x: log10 of the rates; [steps].
        loss: the trend; [steps].
        noise: standard deviation of the trend itself, from the scatter of the losses about it.
        start: what the loss is before the rate matters.
        rise: log10 of the last rate whose loss is not above the start's.
    """

    x: Array
    loss: Array
    noise: float
    start: float
    rise: float

    @property
    def lowest(self) -> int:
        """The step at which the trend is lowest."""
        return int(np.argmin(self.loss))


def trend_of(lrs: Sequence[float], losses: Sequence[float]) -> Trend:
    """The trend of finite losses over rising rates.

    Losses above the start's count as the start's: the explosion at the end, often a hundredfold, would drown the
    valley before it.

    Args:
        lrs: the rates, rising.
        losses: one each, finite.
    """
    x, seen = np.log10(np.asarray(lrs, dtype=np.float64)), np.asarray(losses, dtype=np.float64)
    start, scatter = float(np.median(seen[: max(5, len(seen) // 10)])), _scatter(seen)
    weights = np.exp(-0.5 * ((x[:, None] - x[None, :]) / WIDTH) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    loss = weights @ np.minimum(seen, start + scatter)
    noise = scatter * float(np.sqrt((weights**2).sum(axis=1)).mean())
    return Trend(x, loss, noise, start, float(x[np.flatnonzero(seen <= start + scatter)[-1]]))


def _scatter(losses: Array) -> float:
    """Standard deviation of the losses about their course: of differences between neighbours, by the median.

    Neighbours differ by the course too, but by less than by noise wherever there is noise to speak of; the median
    does not see the explosion at the end.
    """
    return DEVIATIONS_OF_MEDIAN * float(np.median(np.abs(np.diff(losses)))) / float(np.sqrt(2))

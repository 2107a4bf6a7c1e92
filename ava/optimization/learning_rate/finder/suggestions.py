"""What a range test's curve says about the learning rate: three suggestions, each with its reason, or a refusal.

All are read off the trend (`trend.py`):

    steepest   where the loss falls fastest
    minimum    a tenth of the rate where the loss is lowest
    valley     four fifths of the way from where a tenth of the fall is made to where the loss is lowest

The way is measured on the log axis. As the peak of a 1cycle schedule the valley's rate came nearest to the best of a
grid, for optimizers as different as SGD, Lion and Adafactor; `probes.py` tries it, and the rates on both sides of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ava.errors import InputError
from ava.optimization.learning_rate.finder.range_test import MIN_STEPS
from ava.optimization.learning_rate.finder.trend import WIDTH, Trend, trend_of

SIGNIFICANT = 6.0
"""A difference within the trend of so many of its standard deviations is not chance: extremes over a whole curve of
noise differ by about 4."""
EDGE, DEPTH = 0.1, 0.8
"""Where a valley begins, as a share of the fall, and how far into it the suggestion lies, as a share of the way."""


class NoSuggestion(InputError):  # noqa: N818
    """The curve says nothing about the learning rate: why, and what to try."""


@dataclass(frozen=True)
class Suggestion:
    """A learning rate.

    Attributes:
        method: "probes", "valley", "steepest" or "minimum".
        lr: the rate.
        reason: one sentence.
    """

    method: str
    lr: float
    reason: str


def suggest(lrs: Sequence[float], losses: Sequence[float]) -> dict[str, Suggestion]:
    """Read the curve of a range test.

    Args:
        lrs: the rate of each step, rising.
        losses: the loss of each step; from the first that is not finite on they are left aside.

    Returns:
        Method -> suggestion.

    Raises:
        NoSuggestion: the loss was never finite, never fell by more than its noise, or the range is too small to see
            where it falls and where it rises again.
    """
    count = next((k for k, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    _refuse_short(count, lrs)
    trend = trend_of(lrs[:count], losses[:count])
    _refuse_flat(trend)
    _refuse_open(trend)
    return {one.method: one for one in (_valley(trend), _steepest(trend), _minimum(trend))}


def _valley(trend: Trend) -> Suggestion:
    """Well down the valley, and clear of its bottom, where a higher rate already does harm."""
    # Seen from the bottom: noise before the fall may well look like a tenth of it.
    above = np.flatnonzero(_fallen(trend)[: trend.lowest] < EDGE)
    edge, bottom = trend.x[above[-1] + 1 if len(above) else 0], trend.x[trend.lowest]
    lr = float(10 ** (edge + DEPTH * (bottom - edge)))
    return Suggestion("valley", lr, (
        f"Four fifths of the way, on the log axis, from {10**edge:.2g}, where a tenth of the loss's fall is made, "
        f"to {10**bottom:.2g}, where the loss is lowest."
    ))  # fmt: skip


def _steepest(trend: Trend) -> Suggestion:
    slope = np.gradient(trend.loss, trend.x)[: trend.lowest + 1]
    lr = float(10 ** trend.x[int(np.argmin(slope))])
    return Suggestion("steepest", lr, f"The loss falls fastest at {lr:.2g}.")


def _minimum(trend: Trend) -> Suggestion:
    lowest = float(10 ** trend.x[trend.lowest])
    return Suggestion("minimum", lowest / 10, f"A tenth of {lowest:.2g}, where the loss is lowest.")


def _fallen(trend: Trend) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The share of the whole fall that is made at each step."""
    highest = trend.loss[: trend.lowest + 1].max()
    return np.asarray((highest - trend.loss) / (highest - trend.loss[trend.lowest]))


def _refuse_short(count: int, lrs: Sequence[float]) -> None:
    if count == 0:
        raise NoSuggestion(
            "the very first loss is not a finite number, whatever the learning rate.",
            hint="Look for what makes it so in the model, its weights or the data.",
        )
    if count < MIN_STEPS:
        raise NoSuggestion(
            f"the loss was finite for only {count} steps, up to a learning rate of {lrs[count - 1]:.2g}.",
            hint="Lower min_lr.",
        )


def _refuse_flat(trend: Trend) -> None:
    """The loss has to fall by more than chance."""
    before = trend.loss[: trend.lowest + 1]
    if before.max() - before[-1] > SIGNIFICANT * trend.noise:
        return
    if trend.rise < trend.x[0] + (trend.x[-1] - trend.x[0]) / 4:
        raise NoSuggestion(
            f"the loss rises from the lowest learning rate on, {10 ** trend.x[0]:.2g}: its fall lies below it.",
            key="min_lr", value=f"{10 ** trend.x[0]:.2g}", hint="Lower min_lr by several powers of ten.",
        )  # fmt: skip
    raise NoSuggestion(
        f"the loss never fell by more than its noise: by {before.max() - before[-1]:.2g}, where chance makes "
        f"{SIGNIFICANT * trend.noise:.2g}.",
        hint="Take larger batches (or accumulate), more steps, or a higher max_lr; or look whether the model learns.",
    )


def _refuse_open(trend: Trend) -> None:
    """The range has to hold the bottom of the valley."""
    end = trend.x[-1]
    if trend.x[trend.lowest] > end - WIDTH / 2:
        raise NoSuggestion(
            f"the loss still falls at the highest learning rate, {10**end:.2g}: the best one may lie above it.",
            key="max_lr", value=f"{10**end:.2g}", hint="Raise max_lr tenfold.",
        )  # fmt: skip

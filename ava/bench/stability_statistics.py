"""What outcomes of trainings say, and how surely."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

Z = 1.959963984540054
"""Standard deviations that hold 95 % of a normal distribution."""
AGAIN, AROUND = 5, 11
"""Steps whose median says that a loss is back; steps whose mean a clean training's smoothed loss is."""


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score.

        (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n)

    Args:
        count: successes.
        total: trials; with none the interval is all there can be.

    Reference: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    if not total:
        return 0.0, 1.0
    share, weight = count / total, Z**2 / total
    middle = (share + weight / 2) / (1 + weight)
    margin = Z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return max(0.0, middle - margin), min(1.0, middle + margin)


def bootstrap(values: Sequence[float], draws: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean by percentiles of resampled means.

    Args:
        values: paired differences or ratios, one a seed.
        draws: samples with replacement.
        seed: of the samples.

    Reference: Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13
    """
    drawn = random.Random(seed)
    means = sorted(statistics.fmean(drawn.choices(values, k=len(values))) for _ in range(draws))
    return means[int(0.025 * draws)], means[min(draws - 1, int(0.975 * draws))]


def steps_to_recover(
    losses: Sequence[tuple[int, float]], clean: Sequence[tuple[int, float]], end: int, tolerance: float
) -> int | None:
    """Attempts from a fault's end until the training loss is back at what the clean training had at that step.

    Back is the first attempt with which five attempts begin whose median distance to the clean training's smoothed loss
    at their steps is within the tolerance and twice the standard error that a median of five has from single batches.

    Args:
        losses: of the training with a fault: the step and the batch's mean loss, one an attempt.
        clean: of the same training without it.
        end: the first attempt after the fault, counted from 1.
        tolerance: in nats.

    Returns:
        0 where nothing was to be seen; None where it does not come back.
    """
    smooth = _smoothed(clean)
    noise = statistics.fmean(abs(loss - smooth[step]) for step, loss in clean) * math.sqrt(math.pi / 2)
    limit = tolerance + 2 * noise * math.sqrt(math.pi / 2 / AGAIN)
    over = [loss - smooth[step] if math.isfinite(loss) else math.inf for step, loss in losses if step in smooth]
    for begin in range(end - 1, len(over) - AGAIN + 1):
        if statistics.median(over[begin : begin + AGAIN]) <= limit:
            return begin - (end - 1)
    return None


def _smoothed(losses: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Step -> the mean loss of the steps around it."""
    values = [loss for _, loss in losses]
    half = AROUND // 2
    return {
        step: statistics.fmean(values[max(0, index - half) : index + half + 1])
        for index, (step, _) in enumerate(losses)
    }


def middle(values: Sequence[float]) -> float | None:
    """The median; None of nothing."""
    return statistics.median(values) if values else None

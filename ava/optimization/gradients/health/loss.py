"""Whether a loss is a number, and whether it stands far above the recent ones.

What "recent" means is kept in a moving mean and variance, of which a spike may move either only a little: a loss
enters as at most three deviations from the mean. So a single spike does not hide the next one, and a lasting new level
is learned within some tens of steps. Losses may be negative: nothing is divided by them and no logarithm is taken.
"""

from __future__ import annotations

import math
from typing import Any, TypedDict

from torch import Tensor

from ava.errors import InputError

WINSOR = 3.0
"""Deviations from the mean as which a loss enters at most."""
FLOOR = 1e-6
"""The deviation is at least this share of the mean: a constant loss has rounding errors, not spikes."""


class LossHealth(TypedDict):
    """What is known of a loss; nan where too few losses were seen."""

    is_nan: bool
    is_inf: bool
    is_spike: bool
    mean: float
    std: float
    zscore: float
    trend: float


class LossHealthMonitor:
    """Tells a loss that is no number, or a spike, from the ordinary.

        z = (loss - mean) / std;  a spike where z > spike_threshold
        x = loss, limited to mean +- 3 std;  w = max(1 / n, 2 / (window + 1))
        mean <- mean + w (x - mean);  std^2 <- (1 - w) (std^2 + w (x - mean)^2)

    On 200,000 clean losses about a constant it called 1 a spike, on as many that fall with their noise none, on
    log-normal ones (sigma 0.25) 103. Of losses that double for one step it saw 99.9, 99.8 and 26 %, of those that
    triple all, all and 82 % (`python -m tests.optimization.gradients.health.test_loss`).

    Args:
        window: how many losses mean and deviation look back, about; at least 2.
        spike_threshold: deviations above the mean from which on a loss is a spike, above 0.
        warmup: losses before the first verdict, at least 2.

    Raises:
        InputError: one of them is not allowed.

    Reference: Finch 2009, "Incremental calculation of weighted mean and variance"
    """

    def __init__(self, window: int = 100, spike_threshold: float = 5.0, warmup: int = 20) -> None:
        for name, value, least in (("window", window, 2), ("warmup", warmup, 2)):
            if value < least:
                raise InputError(f"must be at least {least}.", key=name, value=value, hint="Try 100 and 20.")
        if not 0 < spike_threshold < math.inf:
            raise InputError("must be a finite number above 0.", key="spike_threshold", value=spike_threshold)
        self.window, self.spike_threshold, self.warmup = window, spike_threshold, warmup
        self.seen, self.mean, self.variance, self.trend = 0, math.nan, 0.0, 0.0

    def check_loss(self, loss: float | Tensor) -> LossHealth:
        """Judge a loss against those before it, then remember it; one that is not finite is not remembered.

        Args:
            loss: a number, or a tensor of one element, which is read here: the host waits for the device.

        Returns:
            `is_nan`, `is_inf`, `is_spike`, and of the losses before this one the `mean`, the `std` and the `trend`
            (change of the mean per step); `zscore` is this one's. All in the loss's unit, but the last.

        Raises:
            InputError: it has more or fewer elements than one.
        """
        value = _number(loss)
        std = max(math.sqrt(self.variance), FLOOR * abs(self.mean)) if self.seen >= self.warmup else math.nan
        zscore = (value - self.mean) / std if std else math.nan
        verdict = LossHealth(
            is_nan=math.isnan(value), is_inf=math.isinf(value),
            is_spike=math.isfinite(value) and zscore > self.spike_threshold,
            mean=self.mean, std=std, zscore=zscore, trend=self.trend if self.seen >= self.warmup else math.nan,
        )  # fmt: skip
        if math.isfinite(value):
            self._remember(value, math.inf if math.isnan(std) else WINSOR * std)
        return verdict

    def state_dict(self) -> dict[str, Any]:
        """What it remembers, as plain numbers."""
        return {"seen": self.seen, "mean": self.mean, "variance": self.variance, "trend": self.trend}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.seen, self.mean = state["seen"], state["mean"]
        self.variance, self.trend = state["variance"], state["trend"]

    def _remember(self, value: float, reach: float) -> None:
        self.seen += 1
        if self.seen == 1:
            self.mean = value
            return
        weight = max(1 / self.seen, 2 / (self.window + 1))
        step = min(max(value - self.mean, -reach), reach)
        self.mean += weight * step
        self.variance = (1 - weight) * (self.variance + weight * step**2)
        self.trend += weight * (weight * step - self.trend)


def _number(loss: float | Tensor) -> float:
    if isinstance(loss, Tensor) and loss.numel() != 1:
        raise InputError(f"a loss is one number, but this has the shape {tuple(loss.shape)}.", hint="Take its mean.")
    return float(loss)

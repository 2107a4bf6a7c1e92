"""ZClip: a norm that is out of line with the recent ones is brought back among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ava.optimization.gradients.clip.limit import limit
from ava.optimization.gradients.clip.memory import Memory, on_device_of, take_up
from ava.optimization.gradients.health.measurement import Measurement
from ava.registry import Decay, PositiveFloat, PositiveInt, clip


@clip
class ZScore:
    """Z-score (ZClip): all gradients scaled together where their norm lies far above the mean of the recent ones.

        z = (||g|| - mu) / sigma
        n = mu + clip_norm^2 / z * sigma  where z > clip_norm, else ||g||
        g <- g * n / ||g||
        mu <- alpha mu + (1 - alpha) n,  sigma^2 <- alpha sigma^2 + (1 - alpha) (n - mu)^2

    The larger the spike, the nearer to the mean it is brought. The first `warmup` norms only give the mean and the
    variance to start from. A norm that is not finite, or whose square is beyond
    float32, leaves both as they are.

    Args:
        clip_norm: the z-score above which is clipped.
        alpha: the weight of the past in mean and variance.
        warmup: steps that are not clipped.

    Reference: Kumar et al. 2025, https://arxiv.org/abs/2504.02507
    """

    def __init__(self, /, clip_norm: PositiveFloat = 2.5, alpha: Decay = 0.97, warmup: PositiveInt = 25) -> None:
        self.threshold, self.alpha, self.warmup = clip_norm, alpha, warmup
        self.memory: Memory = {"mean": torch.tensor(0.0), "variance": torch.tensor(0.0), "seen": torch.tensor(0)}

    def __call__(self, measured: Measurement, /) -> Tensor:
        """Judge and remember the norm; the factor, 0-dim, on the gradients' device; not read here."""
        memory = on_device_of(self.memory, measured.norm)
        bound = torch.where(memory["seen"] < self.warmup, torch.inf, self._bound(memory, measured.norm))
        factor = limit(measured.norm, bound)
        self.memory = self._remember(memory, measured.norm * factor)
        return factor

    def state_dict(self) -> dict[str, Any]:
        """Mean, variance and the number of norms seen."""
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: it is no such state.
        """
        self.memory = take_up(self.memory, state)

    def _bound(self, memory: Memory, norm: Tensor) -> Tensor:
        """The norm that is let through; infinite where the z-score is not above the threshold."""
        deviation = memory["variance"].sqrt()
        z = (norm - memory["mean"]) / deviation
        return torch.where(z > self.threshold, memory["mean"] + self.threshold**2 / z * deviation, torch.inf)

    def _remember(self, memory: Memory, norm: Tensor) -> Memory:
        """Mean and variance with the norm: of all so far during the warmup, then moving; unchanged if not finite."""
        mean, variance, seen = memory["mean"], memory["variance"], memory["seen"]
        number = norm.to(mean.dtype)
        is_warm = seen >= self.warmup
        weight = torch.where(is_warm, 1 - self.alpha, 1 / (seen + 1))
        new_mean = mean + weight * (number - mean)
        # Plain variance is updated with both means, the paper's moving one with the new mean alone.
        spread = (number - new_mean) * torch.where(is_warm, number - new_mean, number - mean)
        new = {"mean": new_mean, "variance": variance + weight * (spread - variance), "seen": seen + 1}
        # A norm whose square is beyond the variance's type would make that infinite, and no norm a spike ever after.
        is_usable = torch.isfinite(number) & torch.isfinite(new["variance"])
        return {name: torch.where(is_usable, new[name], memory[name]) for name in memory}

"""ADOPT: the gradient is divided by what was known before it came, and only then averaged."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import atan2, maximum, minimum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage

_SQUARE = Slot("exp_avg_sq", signed=False)


@stage("moments", _SQUARE, counts=True)
def normalise_by_past_atan2(t: Operands, h: Hyperparameters) -> None:
    """The same by an arc tangent, which needs neither eps nor clip, and so no first step without an update.

        n = 1.27 atan2(g, sqrt(v));  v <- b2 v + (1 - b2) g^2

    The first gradient is divided by its own magnitude. After Everett et al. 2024, https://arxiv.org/abs/2407.05872.
    """
    past = where(t.step == 1, t.g * t.g, t.exp_avg_sq)
    t.exp_avg_sq = h.betas[1] * past + (1 - h.betas[1]) * t.g * t.g
    t.g = 1.27 * atan2(t.g, sqrt(past))


@stage("moments", _SQUARE, counts=True, variants={"atan2": normalise_by_past_atan2})
def normalise_by_past(t: Operands, h: Hyperparameters) -> None:
    """The gradient over the root mean square of those before it, clipped; the first only starts the mean.

    v_0 = g_0^2;  n = clip(g / max(sqrt(v), eps), +-k^(1/4)), k = 1 at the first update;  v <- b2 v + (1 - b2) g^2
    """
    updates = t.step - 1
    limit = updates**0.25  # 0 at first, so that nothing reaches the mean
    normalised = t.g / maximum(sqrt(t.exp_avg_sq), h.eps)
    weight = where(updates == 0, 1.0, 1 - h.betas[1])
    t.exp_avg_sq = h.betas[1] * t.exp_avg_sq + weight * t.g * t.g
    t.g = maximum(minimum(normalised, limit), -limit)
    t.lr = where(updates == 0, 0.0, t.lr)  # nor do the weights decay


@stage("moments", Slot("exp_avg"))
def average(t: Operands, h: Hyperparameters) -> None:
    """The running mean of what the gradient was made: u = m <- b1 m + (1 - b1) g."""
    t.exp_avg = h.betas[0] * t.exp_avg + (1 - h.betas[0]) * t.g
    t.u = t.exp_avg

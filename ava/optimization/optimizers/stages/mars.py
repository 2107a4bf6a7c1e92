"""MARS' variance reduction: what the gradient has changed since the last step tells where it is going."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


# Exact: a difference of two gradients, of which a compressed one would leave mostly the error of compression.
@stage("gradient", Slot("previous_grad", exact=True))
def reduce_variance(t: Operands, h: Hyperparameters) -> None:
    """The gradient, extrapolated, at a length of at most 1: g <- c / max(1, |c|), c = g + gamma b1 / (1 - b1) (g - g').

    The previous gradient g' starts at 0. Yuan et al. 2024, https://arxiv.org/abs/2411.10438.
    """
    beta1 = h.betas[0]
    corrected = t.g + (h.gamma * beta1 / (1 - beta1)) * (t.g - t.previous_grad)
    t.previous_grad = t.g
    t.g = corrected * (1 / maximum(sqrt(t.sum(corrected * corrected)), 1.0))

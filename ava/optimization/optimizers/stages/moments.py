"""Moments: what an optimizer remembers of past gradients."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage(Slot("momentum_buffer"))
def heavy_ball(t: Operands, h: Hyperparameters) -> None:
    """The decayed sum of gradients: b <- mu b + g. Polyak 1964."""
    t.momentum_buffer = h.momentum * t.momentum_buffer + t.g


@stage(Slot("momentum_buffer"), counts=True)
def dampened_heavy_ball(t: Operands, h: Hyperparameters) -> None:
    """The same with new gradients dampened, except the first: b <- g, then b <- mu b + (1 - damp) g."""
    is_first = 0 ** (t.step - 1)
    t.momentum_buffer = h.momentum * t.momentum_buffer + (1 - h.dampening * (1 - is_first)) * t.g


@stage(Slot("exp_avg"), Slot("exp_avg_sq", signed=False))
def adam_moments(t: Operands, h: Hyperparameters) -> None:
    """Running means of gradient and square: m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2."""
    beta1, beta2 = h.betas
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g


@stage(Slot("exp_avg"))
def interpolate(t: Operands, h: Hyperparameters) -> None:
    """Two rates of forgetting: u = b1 m + (1 - b1) g for this update, m <- b2 m + (1 - b2) g to remember."""
    beta1, beta2 = h.betas
    t.u = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg = beta2 * t.exp_avg + (1 - beta2) * t.g

"""Moments: what an optimizer remembers of past gradients. They leave the update in the making in `t.u`."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage("moments")
def along_gradient(t: Operands, h: Hyperparameters) -> None:
    """No memory: u = g."""
    t.u = t.g


@stage("moments", Slot("momentum_buffer"))
def heavy_ball(t: Operands, h: Hyperparameters) -> None:
    """The decayed sum of gradients: u = b <- mu b + g. Polyak 1964."""
    t.momentum_buffer = h.momentum * t.momentum_buffer + t.g
    t.u = t.momentum_buffer


@stage("moments", Slot("momentum_buffer"), counts=True)
def dampened_heavy_ball(t: Operands, h: Hyperparameters) -> None:
    """The same with new gradients dampened, except the first: b <- g, then b <- mu b + (1 - damp) g."""
    is_first = 0 ** (t.step - 1)
    t.momentum_buffer = h.momentum * t.momentum_buffer + (1 - h.dampening * (1 - is_first)) * t.g
    t.u = t.momentum_buffer


@stage("moments")
def nesterov(t: Operands, h: Hyperparameters) -> None:
    """Where the momentum will have gone: u = g + mu b. Sutskever et al. 2013."""
    t.u = t.g + h.momentum * t.momentum_buffer


@stage("moments", Slot("exp_avg"), Slot("exp_avg_sq", signed=False), counts=True)
def adam_moments(t: Operands, h: Hyperparameters) -> None:
    """Running means of gradient and square, freed of their zero start.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2; u = m / bc1, den = sqrt(v) / sqrt(bc2), bc_i = 1 - b_i^t.
    """
    beta1, beta2 = h.betas
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.u = t.exp_avg / (1 - beta1**t.step)
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - beta2**t.step)


@stage("moments", Slot("exp_avg"))
def interpolate(t: Operands, h: Hyperparameters) -> None:
    """Two rates of forgetting: u = b1 m + (1 - b1) g for this update, m <- b2 m + (1 - b2) g to remember."""
    beta1, beta2 = h.betas
    t.u = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg = beta2 * t.exp_avg + (1 - beta2) * t.g


@stage("moments", Slot("exp_avg_slow"))
def slow_average(t: Operands, h: Hyperparameters) -> None:
    """AdEMAMix's second, slow mean beside the first: s <- b3 s + (1 - b3) g; u <- u + alpha s.

    It is not freed of its zero start, which serves as its warmup. Pagliardini et al. 2024,
    https://arxiv.org/abs/2409.03137.
    """
    t.exp_avg_slow = h.ademamix_beta * t.exp_avg_slow + (1 - h.ademamix_beta) * t.g
    t.u = t.u + h.ademamix_alpha * t.exp_avg_slow

"""Moments that keep their zero start: for rules whose rate makes up for it, and for those that are told to."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage("moments", Slot("exp_avg"), Slot("exp_avg_sq", signed=False))
def uncorrected_moments(t: Operands, h: Hyperparameters) -> None:
    """Adam's running means as they are: u = m <- b1 m + (1 - b1) g, den = sqrt(v), v <- b2 v + (1 - b2) g^2."""
    beta1, beta2 = h.betas
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.u = t.exp_avg
    t.den = sqrt(t.exp_avg_sq)

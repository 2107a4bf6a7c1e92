"""AdamW beside a rule for matrices: with betas, eps and a rate of its own, for vectors and what else is no matrix."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage
from ava.optimization.optimizers.stages.direction import divide_atan2


@stage("moments", Slot("exp_avg"), Slot("exp_avg_sq", signed=False), counts=True)
def adamw_moments(t: Operands, h: Hyperparameters) -> None:
    """Adam's moments with `adamw_betas`, at the share `adamw_lr_ratio` of the learning rate."""
    beta1, beta2 = h.adamw_betas
    t.lr = t.lr * h.adamw_lr_ratio
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.u = t.exp_avg / (1 - beta1**t.step)
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - beta2**t.step)


@stage("direction", variants={"atan2": divide_atan2})
def adamw_divide(t: Operands, h: Hyperparameters) -> None:
    """Signal over noise: u <- u / (den + adamw_eps)."""
    t.u = t.u / (t.den + h.adamw_eps)

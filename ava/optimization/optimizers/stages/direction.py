"""Direction: where the update points, made from what the moments leave in `t.u` and `t.den`."""

from __future__ import annotations

from ava.optimization.optimizers import arithmetic
from ava.optimization.optimizers.arithmetic import atan2
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage("direction")
def divide_atan2(t: Operands, h: Hyperparameters) -> None:
    """A division that needs no eps and cannot explode: u <- 1.27 atan2(u, den).

    Everett et al. 2024, https://arxiv.org/abs/2407.05872.
    """
    t.u = 1.27 * atan2(t.u, t.den)


@stage("direction", variants={"atan2": divide_atan2})
def divide(t: Operands, h: Hyperparameters) -> None:
    """Signal over noise: u <- u / (den + eps)."""
    t.u = t.u / (t.den + h.eps)


@stage("direction")
def to_sign(t: Operands, h: Hyperparameters) -> None:
    """Every coordinate at the same pace: u becomes -1, 0 or 1."""
    t.u = arithmetic.sign(t.u)

"""Gate: what of the update is let through, judged by the gradient of this very step."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import absolute, maximum, sign, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage("gate")
def cautious(t: Operands, h: Hyperparameters) -> None:
    """Only where the gradient agrees: u <- u mask / max(mean mask, 1e-3), mask = (u g > 0).

    Liang et al. 2024, https://arxiv.org/abs/2411.16085.
    """
    agrees = t.u * t.g > 0
    t.u = where(agrees, t.u, 0.0) / maximum(t.mean(agrees), 1e-3)


@stage("gate")
def grams(t: Operands, h: Hyperparameters) -> None:
    """The gradient's direction at the update's pace: u <- sign(g) |u|. Cao et al. 2024, arXiv 2412.17107."""
    t.u = sign(t.g) * absolute(t.u)

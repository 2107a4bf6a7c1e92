"""Weight decay: what pulls the weights towards zero, and whether the moments see it."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import where
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage("decay")
def coupled_decay(t: Operands, h: Hyperparameters) -> None:
    """L2 regularisation, part of the gradient and so of everything made from it: g <- g + wd p."""
    t.g = t.g + h.weight_decay * t.p


@stage("decay")
def decoupled_decay(t: Operands, h: Hyperparameters) -> None:
    """Decay beside the gradient: p <- (1 - lr wd) p. Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101."""
    t.p = (1 - t.lr * h.weight_decay) * t.p


@stage("decay")
def cautious_decay(t: Operands, h: Hyperparameters) -> None:
    """Decoupled decay, only where the update too moves the weight towards zero: where u p > 0.

    Chen et al. 2025, https://arxiv.org/abs/2510.12402.
    """
    t.p = t.p - where(t.u * t.p > 0, (t.lr * h.weight_decay) * t.p, 0.0)

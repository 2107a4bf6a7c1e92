"""Weight decay: what pulls the weights towards zero, and whether the moments see it."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage()
def coupled_decay(t: Operands, h: Hyperparameters) -> None:
    """L2 regularisation, part of the gradient and so of everything made from it: g <- g + wd p."""
    t.g = t.g + h.weight_decay * t.p


@stage()
def decoupled_decay(t: Operands, h: Hyperparameters) -> None:
    """Decay beside the gradient: p <- (1 - lr wd) p. Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101."""
    t.p = (1 - h.lr * h.weight_decay) * t.p

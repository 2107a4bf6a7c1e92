"""Adagrad."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.root_mean_square import anneal, sum_of_squares
from ava.optimization.optimizers.stages.write import descend
from ava.registry import NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Adagrad")
def adagrad(
    lr: PositiveFloat = 1e-2,
    lr_decay: NonNegativeFloat = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    initial_accumulator_value: NonNegativeFloat = 0.0,
    eps: NonNegativeFloat = 1e-10,
) -> Words:
    """Adagrad: the gradient over the root of all squares so far; for sparse features and convex problems.

        g <- g + wd p;  S <- S + g^2;  p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(S) + eps)

    Args:
        lr: learning rate; steps shorten by themselves as 1 / sqrt(t).
        lr_decay: how much faster they shorten still.
        weight_decay: decay, as part of the gradient.
        initial_accumulator_value: S before the first step.
        eps: keeps the division from zero, outside the root.

    Reference: Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html
    """
    return weight_decay and coupled_decay, sum_of_squares, divide, lr_decay and anneal, descend

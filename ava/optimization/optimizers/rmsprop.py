"""RMSprop."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.root_mean_square import centred_mean_square, mean_square, momentum_of_updates
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="RMSprop")
def rmsprop(
    lr: PositiveFloat = 1e-3,
    alpha: Decay = 0.99,
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    momentum: Decay = 0.0,
    centered: bool = False,
) -> Words:
    """RMSprop: the gradient over the root of its mean square; for noisy, changing goals such as reinforcement learning.

        g <- g + wd p;  v <- alpha v + (1 - alpha) g^2;  u = g / (sqrt(v) + eps)
        centered:  a <- alpha a + (1 - alpha) g;  u = g / (sqrt(v - a^2) + eps)
        momentum:  u <- b <- momentum b + u
        p <- p - lr u

    Args:
        lr: learning rate. The mean square starts at 0 and is not freed of that, so first steps are up to
            1 / sqrt(1 - alpha) = 10 times as long.
        alpha: decay of the mean square.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay, as part of the gradient.
        momentum: decay of the sum of updates; 0 keeps none.
        centered: whether to divide by the deviation from the mean gradient.

    Reference: Tieleman & Hinton 2012, lecture 6.5; Graves 2013 (centred), https://arxiv.org/abs/1308.0850
    """
    moment = centred_mean_square if centered else mean_square
    return weight_decay and coupled_decay, moment, divide, momentum and momentum_of_updates, descend

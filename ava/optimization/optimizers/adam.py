"""Adam."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Adam")
def adam(
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Words:
    """Adam: the mean gradient over the root of its mean square; with decay, AdamW is the better choice.

        g <- g + wd p;  m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
        p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        lr: learning rate.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay, as part of the gradient: L2 regularisation, which the division all but levels out.

    Reference: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980
    """
    return weight_decay and coupled_decay, adam_moments, divide, descend

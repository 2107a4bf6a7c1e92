"""AdamW."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="AdamW")
def adamw(
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
) -> Words:
    """AdamW: Adam with weight decay beside the gradient; the standard baseline.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
        p <- (1 - lr wd) p;      p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        lr: learning rate.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate.

    Reference: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    """
    return adam_moments, divide, weight_decay and decoupled_decay, descend

"""NAdam."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.adam_family import nesterov_moments
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="NAdam")
def nadam(
    lr: PositiveFloat = 2e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    momentum_decay: NonNegativeFloat = 4e-3,
) -> Words:
    """NAdam: Adam that looks ahead along its momentum, as Nesterov does; often a little faster than Adam.

        g <- g + wd p;  m, v as in Adam;  mu_t = b1 (1 - 0.96^(t psi) / 2)
        u = (1 - mu_t) / (1 - mu_1...mu_t) g + mu_t+1 / (1 - mu_1...mu_t+1) m
        p <- p - lr u / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        lr: learning rate.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay, as part of the gradient; with `decay="decoupled"` this is NAdamW.
        momentum_decay: psi, how fast the momentum's weight rises from half of its own to the whole.

    Reference: Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """
    return weight_decay and coupled_decay, nesterov_moments, divide, descend

"""AdEMAMix."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.ademamix import (
    rising_alpha,
    rising_beta3,
    two_means,
    whole_alpha,
    whole_beta3,
)  # fmt: skip
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, PositiveInt, optimizer


@optimizer(title="AdEMAMix")
def ademamix(
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay, Decay] = (0.9, 0.999, 0.9999),
    alpha: NonNegativeFloat = 5.0,
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    alpha_warmup: PositiveInt | None = None,
    beta3_warmup: PositiveInt | None = None,
) -> Words:
    """AdEMAMix: AdamW with a second, slow momentum, which old gradients still speak in; for long trainings.

        m1 <- b1 m1 + (1 - b1) g;  m2 <- b3_t m2 + (1 - b3_t) g;  v <- b2 v + (1 - b2) g^2
        p <- p - lr ((m1 / (1 - b1^t) + alpha_t m2) / (sqrt(v / (1 - b2^t)) + eps) + wd p)
        alpha_t = alpha min(t / T, 1);  1 / log b3_t goes from 1 / log b1 to 1 / log b3 on a straight line over T steps

    Args:
        lr: learning rate; AdamW's or a little below.
        betas: decay of the fast mean, of the mean square, and of the slow mean.
        alpha: weight of the slow mean: 4 to 10.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate.
        alpha_warmup: steps T over which alpha rises from 0, best the whole training; None has it whole at once.
        beta3_warmup: steps T over which the slow mean becomes slow, as above; None has it slow at once.

    Reference: Pagliardini et al. 2024, https://arxiv.org/abs/2409.03137
    """
    return (
        rising_alpha if alpha_warmup else whole_alpha, rising_beta3 if beta3_warmup else whole_beta3,
        two_means, divide, weight_decay and decoupled_decay, descend,
    )  # fmt: skip

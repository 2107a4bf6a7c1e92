"""AdamW in little memory."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.uncorrected import uncorrected_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="AdamAdv", defaults={"state": "factored", "stochastic_rounding": True})
def adam_adv(
    lr: PositiveFloat = 5e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    bias_correction: bool = True,
) -> Words:
    """AdamW with factored moments: a bit an element where AdamW has eight bytes; for finetuning large models.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
        p <- (1 - lr wd) p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    The shared options `atan2`, `cautious`, `grams`, `orthograd` and `ademamix` make the family's other members. Where
    adv_optm deviates we follow the papers: the correction of m stands inside the arc tangent, and the slow mean of
    AdEMAMix is not corrected.

    Args:
        lr: learning rate; with factored moments up to five times AdamW's, which update by less.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate.
        bias_correction: whether the moments are freed of their zero start; without, the first steps are larger.

    Reference: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101;
        Park & Lee 2024 (SMMF, the storage), https://arxiv.org/abs/2412.08894
    """
    moments = adam_moments if bias_correction else uncorrected_moments
    return moments, divide, weight_decay and decoupled_decay, descend

"""ADOPT in little memory."""

from __future__ import annotations

from ava.optimization.optimizers.adopt import adopt
from ava.optimization.optimizers.sentence import Words
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="AdoptAdv", defaults={"state": "factored", "stochastic_rounding": True})
def adopt_adv(
    lr: PositiveFloat = 5e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.9999),
    eps: PositiveFloat = 1e-6,
    weight_decay: NonNegativeFloat = 0.0,
) -> Words:
    """ADOPT with factored moments: a bit an element; for finetuning large models in small batches.

    The sentence is `adopt`'s. The shared options `atan2`, `cautious`, `grams`, `orthograd` and `ademamix` make the
    family's other members; with `atan2` there is no clip, and the first step updates too.

    Args:
        lr: learning rate; up to five times AdamW's with factored moments, 1e-4 for finetuning.
        betas: decay of the mean of normalised gradients, and of the mean square of gradients.
        eps: least divisor. (adv_optm adds it instead; we follow the paper.)
        weight_decay: decay per unit of learning rate.

    Reference: Taniguchi et al. 2024, https://arxiv.org/abs/2411.02853;
        Park & Lee 2024 (SMMF, the storage), https://arxiv.org/abs/2412.08894
    """
    return adopt(lr, betas, eps, weight_decay)

"""Simplified AdEMAMix."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.ademamix import accumulator, raw_accumulator, rising_beta1, whole_beta1
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, PositiveInt, optimizer


@optimizer(title="SimplifiedAdEMAMix")
def simplified_ademamix(
    lr: PositiveFloat = 3e-4,
    betas: tuple[Decay, Decay] = (0.99, 0.999),
    alpha: NonNegativeFloat = 100.0,
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    beta1_warmup: PositiveInt | None = None,
    min_beta1: Decay = 0.9,
    bias_correction: bool = True,
) -> Words:
    """Simplified AdEMAMix: AdEMAMix's effect with one momentum, a sum, beside the gradient; for very small batches.

        m <- b1_t m + g;  num <- b1_t num + 1;  v <- b2 v + (1 - b2) g^2
        p <- (1 - lr wd) p - lr ((m + alpha g) / num) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        lr: learning rate; about a third of AdamW's, without `bias_correction` 100 times smaller still.
        betas: decay of the sum (0.9 for large batches, up to 0.9999 for small ones) and of the mean square.
        alpha: weight of this step's gradient beside the sum: 100 to 10 for batches up to 32, 1 to 0 above 512.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate.
        beta1_warmup: steps over which the sum's memory grows from that of `min_beta1`; None has it whole at once.
        min_beta1: the first decay of the sum, with a warmup.
        bias_correction: whether to divide by num and by 1 - b2^t; without, updates get 1 / (1 - b1) times as long.

    Reference: Morwani et al. 2025, https://arxiv.org/abs/2502.02431
    """
    return (
        rising_beta1 if beta1_warmup else whole_beta1, accumulator if bias_correction else raw_accumulator,
        divide, weight_decay and decoupled_decay, descend,
    )  # fmt: skip

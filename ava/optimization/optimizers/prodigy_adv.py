"""Prodigy with an accumulator."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.ademamix import raw_accumulator, whole_beta1
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.prodigy import divide_at_distance, estimated_rate
from ava.optimization.optimizers.stages.uncorrected import uncorrected_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="ProdigyAdv", defaults={"stochastic_rounding": True})
def prodigy_adv(
    lr: PositiveFloat = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    d0: PositiveFloat = 1e-6,
    d_coef: PositiveFloat = 1.0,
    growth_rate: PositiveFloat | None = None,
    bias_correction: bool = True,
    safeguard_warmup: bool = True,
    d_limiter: bool = False,
    simplified_ademamix: bool = False,
    alpha: NonNegativeFloat = 100.0,
) -> Words:
    """Prodigy, with an accumulator in place of the mean if asked; for finetuning, with state=factored in little memory.

        simplified_ademamix:  m <- b1 m + d g;  u = m + alpha d g;  d_hat / alpha, unless limited

    Otherwise the sentence is `prodigy`'s. With state=factored, take d_coef=2; what d comes from is never factored:
    8 bytes a parameter, by which d grows as it does with dense moments. adv_optm looks at every eleventh element,
    takes eps at the old d, and has no bias correction and no safeguard.

    Args:
        lr: factor on the estimated rate; leave it at 1 and let a schedule move it.
        betas: decay of the mean and of the mean square of the gradient; (0.99, 0.999) with the accumulator.
        beta3: decay of the estimate's sums; None is the root of the second of `betas`.
        eps: keeps the division from zero, in units of d.
        weight_decay: decay per unit of d lr.
        d0: first estimate; 1e-7 or 1e-8 with the accumulator, whose updates are about 100 times as large.
        d_coef: factor on the estimate: factored moments take about twice the rate, dense ones 1.
        growth_rate: greatest growth of d a step, such as 1.02; None does not limit.
        bias_correction: whether the rate makes up for moments that start at zero.
        safeguard_warmup: keeps the estimate small while `lr` warms up.
        d_limiter: an estimate at most doubles d in 4 steps.
        simplified_ademamix: sum gradients where Adam averages them, and add this step's again.
        alpha: weight of this step's gradient beside the sum: 100 to 10 for batches up to 32, 1 to 0 above 512.

    Reference: Mishchenko & Defazio 2023, https://arxiv.org/abs/2306.06101;
        Morwani et al. 2025 (the accumulator), https://arxiv.org/abs/2502.02431;
        Park & Lee 2024 (SMMF, the storage), https://arxiv.org/abs/2412.08894
    """
    moments = (whole_beta1, raw_accumulator) if simplified_ademamix else (uncorrected_moments,)
    shared = simplified_ademamix and alpha > 0 and not d_limiter
    return (
        *estimated_rate(beta3, growth_rate, safeguard_warmup, bias_correction, d_limiter, shared),
        *moments, divide_at_distance, weight_decay and decoupled_decay, descend,
    )  # fmt: skip

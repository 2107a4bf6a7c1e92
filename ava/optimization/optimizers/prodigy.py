"""Prodigy."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.prodigy import divide_at_distance, estimated_rate
from ava.optimization.optimizers.stages.uncorrected import uncorrected_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Prodigy", defaults={"stochastic_rounding": True})
def prodigy(
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
) -> Words:
    """Prodigy: Adam that finds its own learning rate; where no rate is known. 16 bytes of state a parameter.

        dlr = d lr;  num <- b3 num + (d / d0) dlr <g, p0 - p>;  s <- b3 s + (d / d0) dlr g
        d_new = max(d, d_coef num / |s|_1), one for all parameters
        m <- b1 m + (1 - b1) d g;  v <- b2 v + (1 - b2) d^2 g^2
        p <- (1 - dlr wd) p - dlr m / (sqrt(v) + d_new eps)

    16-bit parameters are rounded at random by default: to nearest they would not move by d0, and d would never grow.
    Groups may have rates of their own; prodigyopt allows one rate and 0, and has the last two options off: then a
    warmup or a noisy start can drive the estimate far too high. With b1 = 0 it scales the gradient by d_new.

    Args:
        lr: factor on the estimated rate; leave it at 1 and let a schedule move it, a cosine if in doubt.
        betas: decay of the mean and of the mean square of the gradient.
        beta3: decay of the estimate's sums; None is the root of the second of `betas`.
        eps: keeps the division from zero, in units of d.
        weight_decay: decay per unit of dlr.
        d0: first estimate, far below any rate that works.
        d_coef: factor on the estimate: 0.5 and 2 are worth a try.
        growth_rate: greatest growth of d a step, such as 1.02; None does not limit.
        bias_correction: whether the rate makes up for moments that start at zero.
        safeguard_warmup: keeps the estimate small while `lr` warms up.

    Reference: Mishchenko & Defazio 2023, https://arxiv.org/abs/2306.06101
    """
    return (
        *estimated_rate(beta3, growth_rate, safeguard_warmup, bias_correction),
        uncorrected_moments, divide_at_distance, weight_decay and decoupled_decay, descend,
    )  # fmt: skip

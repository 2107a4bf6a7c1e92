"""Lion at Prodigy's rate."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.clip import clip_length
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import to_sign
from ava.optimization.optimizers.stages.moments import interpolate
from ava.optimization.optimizers.stages.prodigy import estimated_rate
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="ProdigyLionAdv", defaults={"stochastic_rounding": True})
def prodigy_lion_adv(
    lr: PositiveFloat = 1.0,
    betas: tuple[Decay, Decay] = (0.9, 0.99),
    beta3: Decay | None = None,
    weight_decay: NonNegativeFloat = 0.0,
    d0: PositiveFloat = 1e-6,
    d_coef: PositiveFloat = 0.3,
    growth_rate: PositiveFloat | None = None,
    safeguard_warmup: bool = True,
    d_limiter: bool = True,
    clip_threshold: PositiveFloat | None = None,
) -> Words:
    """Lion at a learning rate that it finds itself as Prodigy does; where no rate is known.

        dlr and d_new as `prodigy`'s
        u = sign(b1 m + (1 - b1) d g);  p <- (1 - dlr wd) p - dlr u;  m <- b2 m + (1 - b2) d g

    adv_optm has d_coef at 1 and no safeguard: then the loss of a small GPT is 1.4 times AdamW's. With state=factored,
    a bit an element of momentum, it learns more slowly: on handwritten digits the loss is 1.2 times AdamW's. What d is
    estimated from stays dense, 8 bytes a parameter.

    Args:
        lr: factor on the estimated rate; leave it at 1 and let a schedule move it.
        betas: weight of the momentum in this update, and decay of the momentum.
        beta3: decay of the estimate's sums; None is the root of the second of `betas`.
        weight_decay: decay per unit of d lr.
        d0: first estimate, far below any rate that works.
        d_coef: factor on the estimate, which is of Adam's rate: signs take a third of it.
        growth_rate: greatest growth of d a step, such as 1.02; None does not limit.
        safeguard_warmup: keeps the estimate small while `lr` warms up.
        d_limiter: an estimate at most doubles d in 4 steps: signs of equal length prove too much at first.
        clip_threshold: greatest length of each parameter's gradient; None does not clip.

    Reference: Chen et al. 2023, https://arxiv.org/abs/2302.06675;
        Mishchenko & Defazio 2023, https://arxiv.org/abs/2306.06101
    """
    return (
        clip_threshold and clip_length,
        *estimated_rate(beta3, growth_rate, safeguard_warmup, d_limiter=d_limiter),
        interpolate, to_sign, weight_decay and decoupled_decay, descend,
    )  # fmt: skip

"""Schedule-Free AdamW."""

from __future__ import annotations

from ava.errors import InputError
from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.schedule_free import (
    between_by_beta1,
    decay_at_y,
    descend_and_average,
    mean_square,
    warm_up,
    weigh,
)  # fmt: skip
from ava.registry import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, optimizer


@optimizer(title="ScheduleFreeAdamW")
def schedule_free_adamw(
    lr: PositiveFloat = 0.0025,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    warmup_steps: NonNegativeInt = 0,
    r: NonNegativeFloat = 0.0,
    weight_lr_power: NonNegativeFloat = 2.0,
) -> Words:
    """Schedule-Free AdamW: an average in place of a falling rate; where the length of training is not known.

        u = g / (sqrt(v / (1 - b2^t)) + eps) + wd y;  c = w / sum w, w = t^r max(lr)^power
        y <- y + c (z - y) + lr (b1 (1 - c) - 1) u;  z <- z - lr u

    The parameters hold y while training. To evaluate and to keep are the averages x = y + (1 - 1/b1) (z - y).

    Args:
        lr: learning rate, constant; one to ten times that of AdamW with a schedule.
        betas: where between z and x gradients are taken (0.95 or 0.98 for long trainings); decay of the mean square.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate, of the point where gradients are taken.
        warmup_steps: steps over which lr rises from 0; the average has to know of them, so do it here.
        r: power of the step in the average's weights.
        weight_lr_power: power of the rate in the average's weights.

    Raises:
        InputError: the first of `betas` is 0: gradients would be taken at z, and the average could not be found again.

    Reference: Defazio et al. 2024, https://arxiv.org/abs/2405.15682
    """
    if not betas[0]:
        raise InputError("the first must be above 0.", key="betas", value=betas, hint="Set betas=[0.9,0.999].")
    return (
        between_by_beta1, warmup_steps and warm_up, weigh, mean_square, divide, weight_decay and decay_at_y,
        descend_and_average,
    )  # fmt: skip

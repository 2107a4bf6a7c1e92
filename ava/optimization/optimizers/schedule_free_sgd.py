"""Schedule-Free SGD."""

from __future__ import annotations

from ava.errors import InputError
from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.moments import along_gradient
from ava.optimization.optimizers.stages.schedule_free import (
    between_by_momentum,
    decay_at_y,
    descend_and_average,
    warm_up,
    weigh,
)  # fmt: skip
from ava.registry import Decay, NonNegativeFloat, NonNegativeInt, PositiveFloat, optimizer


@optimizer(title="ScheduleFreeSGD")
def schedule_free_sgd(
    lr: PositiveFloat = 1.0,
    momentum: Decay = 0.9,
    weight_decay: NonNegativeFloat = 0.0,
    warmup_steps: NonNegativeInt = 0,
    r: NonNegativeFloat = 0.0,
    weight_lr_power: NonNegativeFloat = 2.0,
) -> Words:
    """Schedule-Free SGD: an average in place of momentum and of a falling rate; for images at an unknown length.

        u = g + wd y;  c = w / sum w, w = t^r max(lr)^power
        y <- y + c (z - y) + lr (mu (1 - c) - 1) u;  z <- z - lr u

    The parameters hold y while training. To evaluate and to keep are the averages x = y + (1 - 1/mu) (z - y).

    Args:
        lr: learning rate, constant; 10 to 50 times that of SGD with momentum and a schedule.
        momentum: where between z (0) and x (1) gradients are taken.
        weight_decay: decay per unit of learning rate, of the point where gradients are taken.
        warmup_steps: steps over which lr rises from 0; the average has to know of them, so do it here.
        r: power of the step in the average's weights.
        weight_lr_power: power of the rate in the average's weights.

    Raises:
        InputError: the momentum is 0: gradients would be taken at z, and the average could not be found again.

    Reference: Defazio et al. 2024, https://arxiv.org/abs/2405.15682
    """
    if not momentum:
        raise InputError("must be above 0.", key="momentum", value=momentum, hint="Set momentum=0.9.")
    return (
        between_by_momentum, warmup_steps and warm_up, weigh, along_gradient, weight_decay and decay_at_y,
        descend_and_average,
    )  # fmt: skip

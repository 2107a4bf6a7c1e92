"""Stochastic gradient descent."""

from __future__ import annotations

from ava.errors import InputError
from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.moments import along_gradient, dampened_heavy_ball, heavy_ball
from ava.optimization.optimizers.stages.moments import nesterov as look_along
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, Fraction, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="SGD")
def sgd(
    lr: PositiveFloat = 0.1,
    momentum: Decay = 0.9,
    dampening: Fraction = 0.0,
    weight_decay: NonNegativeFloat = 0.0,
    nesterov: bool = False,
) -> Words:
    """SGD: the gradient, with momentum; the cheapest, and strong on images when tuned.

        g <- g + wd p;  b <- mu b + (1 - damp) g (at first b = g);  p <- p - lr b, or p - lr (g + mu b) with Nesterov

    Args:
        lr: learning rate; often 10 to 100 times AdamW's.
        momentum: decay of the sum of gradients; 0 keeps no state.
        dampening: how much of each gradient after the first is left out of the momentum.
        weight_decay: decay, as part of the gradient.
        nesterov: whether to look ahead along the momentum.

    Raises:
        InputError: Nesterov without momentum, or with dampening.

    Reference: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html
    """
    if nesterov and (not momentum or dampening):
        raise InputError(
            f"Nesterov needs momentum above 0 and no dampening, not momentum={momentum}, dampening={dampening}.",
            key="nesterov", value=nesterov, hint="Set momentum=0.9 and dampening=0, or nesterov=false.",
        )  # fmt: skip
    moment = (dampened_heavy_ball if dampening else heavy_ball) if momentum else along_gradient
    return weight_decay and coupled_decay, moment, nesterov and look_along, descend

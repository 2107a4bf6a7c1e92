"""Lion."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import to_sign
from ava.optimization.optimizers.stages.moments import interpolate
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Lion")
def lion(
    lr: PositiveFloat = 3e-4,
    betas: tuple[Decay, Decay] = (0.9, 0.99),
    weight_decay: NonNegativeFloat = 0.0,
) -> Words:
    """Lion: the sign of an interpolated momentum; half of AdamW's state.

        u = sign(b1 m + (1 - b1) g);  p <- (1 - lr wd) p - lr u;  m <- b2 m + (1 - b2) g

    Args:
        lr: learning rate; 3 times smaller than AdamW's, in long trainings up to 10.
        betas: weight of the momentum in this update, and decay of the momentum.
        weight_decay: decay per unit of learning rate; larger than AdamW's by as much as the rate is smaller.

    Reference: Chen et al. 2023, https://arxiv.org/abs/2302.06675
    """
    return interpolate, to_sign, weight_decay and decoupled_decay, descend

"""Ranger."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.adam_family import divide_rectified
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Ranger", defaults={"lookahead": 6, "centralise": True})
def ranger(
    lr: PositiveFloat = 1e-2,
    betas: tuple[Decay, Decay] = (0.95, 0.999),
    eps: NonNegativeFloat = 1e-5,
    weight_decay: NonNegativeFloat = 0.0,
) -> Words:
    """Ranger: RAdam with centralised gradients and Lookahead; steady, and made for convnets.

        g <- g - row mean of g (matrices);  m, v and r as in RAdam
        rho > 5:  u = r sqrt(1 - b2^t) (m / (1 - b1^t)) / (sqrt(v) + eps);  else u = m / (1 - b1^t)
        p <- (1 - lr wd) p - lr u;  every 6 steps: s <- s + (p - s) / 2, p <- s

    It is RAdam, with decay beside the gradient and other defaults of the shared options: `lookahead=6`,
    `lookahead_alpha=0.5` and `centralise=true`, which a run may set otherwise.

    pytorch_optimizer's Ranger goes up the gradient while rho <= 5, unless `degenerated_to_sgd=True`, with which it is
    this; the author's code descends. Of its two orders of the decay this is the first: beside the step, not in it.

    Args:
        lr: learning rate; 3 to 10 times Adam's.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero.
        weight_decay: decay per unit of learning rate.

    Reference: Wright 2019, https://github.com/lessw2020/Ranger-Deep-Learning-Optimizer; Liu et al. 2020,
    https://arxiv.org/abs/1908.03265; Zhang et al. 2019, https://arxiv.org/abs/1907.08610; Yong et al. 2020,
    https://arxiv.org/abs/2004.01461
    """
    return adam_moments, divide_rectified, weight_decay and decoupled_decay, descend

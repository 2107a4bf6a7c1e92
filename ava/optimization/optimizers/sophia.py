"""Sophia."""

from __future__ import annotations

from typing import Literal

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.curvature import (
    clip_by_curvature,
    mean_beside_products,
    mean_beside_squares,
)  # fmt: skip
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, PositiveInt, optimizer


@optimizer(title="Sophia", estimates=True)
def sophia(
    lr: PositiveFloat = 3e-4,
    betas: tuple[Decay, Decay] = (0.965, 0.99),
    rho: PositiveFloat = 0.04,
    weight_decay: NonNegativeFloat = 0.1,
    update_period: PositiveInt = 10,
    estimator: Literal["gauss_newton_bartlett", "hutchinson"] = "gauss_newton_bartlett",
) -> Words:
    """Sophia: the mean gradient over the loss's curvature, each coordinate clipped; made for language models.

        m <- b1 m + (1 - b1) g;  u = clip(m / (rho max(h, 0) + 1e-15), -1, 1);  p <- (1 - lr wd) p - lr u
        every `update_period` steps: h <- b2 h + (1 - b2) estimate of the Hessian's diagonal

    The estimate is of the mean loss: for Gauss-Newton-Bartlett the batch size times the square of the gradient at
    labels drawn from the model, for Hutchinson a random vector times the Hessian's product with it. The step does not
    make it; who trains hands it in. Until the first one h is 0, and every step is a sign step.

    The paper's code multiplies rho by the batch size where it uses h; here the estimate has it already.
    pytorch_optimizer's SophiaH is the same with `p=rho`, its lr and weight_decay in other units: lr / rho, wd rho.

    Args:
        lr: learning rate: the longest step of a coordinate; 2 to 5 times smaller than AdamW's.
        betas: decay of the mean gradient and of the curvature.
        rho: what part of the curvature counts; larger clips less. 10 to 50 % of the coordinates unclipped is healthy.
        weight_decay: decay per unit of learning rate.
        update_period: steps from one estimate to the next.
        estimator: how the curvature is estimated: Gauss-Newton needs a task with a likelihood (classes, tokens),
            Hutchinson a loss that is differentiable twice.

    Reference: Liu et al. 2024, https://arxiv.org/abs/2305.14342
    """
    del update_period  # who trains reads it from the param group
    moment = mean_beside_squares if estimator == "gauss_newton_bartlett" else mean_beside_products
    return moment, clip_by_curvature, weight_decay and decoupled_decay, descend

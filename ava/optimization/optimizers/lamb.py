"""LAMB."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.trust import clip_together, decay_in_update, match_weights, measure_gradient
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Lamb")
def lamb(
    lr: PositiveFloat = 1e-2,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-6,
    weight_decay: NonNegativeFloat = 0.01,
    max_grad_norm: PositiveFloat | None = 1.0,
    always_adapt: bool = False,
) -> Words:
    """LAMB: Adam's update as long as each layer's weights; for very large batches.

        g <- g / max(|all g| / max_grad_norm, 1);  m, v as in Adam
        u = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + wd p
        p <- p - lr r u,  r = |p| / |u|, 1 if either is 0

    A group without decay (biases, norms) takes Adam's step, r = 1, unless `always_adapt`. This is timm's rule, and the
    paper's with its two unknowns filled in: the bound on |p| is left out, and moments are corrected (version 3 of the
    paper drops that; pytorch_optimizer's Lamb follows it, bounds |p| at 10, and decays the weights themselves).

    Args:
        lr: learning rate: the step's length over the weights' length.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay, as part of the update.
        max_grad_norm: greatest length of the gradient of all parameters together (of the groups that limit it); null
            leaves it as it is.
        always_adapt: whether groups without decay are scaled too.

    Reference: You et al. 2020, https://arxiv.org/abs/1904.00962
    """
    clip = (measure_gradient, clip_together) if max_grad_norm is not None else ()
    adapted = weight_decay or always_adapt
    return *clip, adam_moments, divide, weight_decay and decay_in_update, adapted and match_weights, descend

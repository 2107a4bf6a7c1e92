"""MARS."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import ByShape
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.mars import reduce_variance
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.vectors import adamw_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="MARS")
def mars(
    lr: PositiveFloat = 3e-3,
    betas: tuple[Decay, Decay] = (0.95, 0.99),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
    gamma: NonNegativeFloat = 0.025,
    adamw_lr_ratio: PositiveFloat = 1.0,
    adamw_betas: tuple[Decay, Decay] = (0.9, 0.95),
) -> ByShape:
    """MARS: AdamW on gradients whose noise is reduced by the change since the last step; for language models.

        c = g + gamma b1 / (1 - b1) (g - g');  c <- c / max(1, |c|);  AdamW with c for g

    g' is the gradient of the last step, on the last step's batch (the paper's MARS-approx), 0 at first as in the
    authors' code. Vectors follow plain AdamW.

    Args:
        lr: learning rate.
        betas: decay of the mean and of the mean square of c.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate.
        gamma: how much of the correction is taken; 0 leaves AdamW on clipped gradients.
        adamw_lr_ratio: the vectors' learning rate as a share of `lr`.
        adamw_betas: the vectors' betas.

    Reference: Yuan et al. 2024, https://arxiv.org/abs/2411.10438
    """
    decay = weight_decay and decoupled_decay
    return ByShape(
        (reduce_variance, adam_moments, divide, decay, descend),
        (adamw_moments, divide, decay, descend),
    )

"""ADOPT."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.adopt import average, normalise_by_past
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="ADOPT")
def adopt(
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.9999),
    eps: PositiveFloat = 1e-6,
    weight_decay: NonNegativeFloat = 0.0,
) -> Words:
    """ADOPT: Adam that converges with any beta2, because a gradient is not divided by itself; for noisy gradients.

        v_0 = g_0^2, without an update; then with k = 1, 2, ...
        n = clip(g / max(sqrt(v), eps), +-k^(1/4));  m <- b1 m + (1 - b1) n
        p <- (1 - lr wd) p - lr m;  v <- b2 v + (1 - b2) g^2

    The first gradient only starts v: neither the weights nor their decay move. The clip's limit is 1 at the first
    update, as in the paper; pytorch_optimizer counts one further.

    Args:
        lr: learning rate; AdamW's is a good start.
        betas: decay of the mean of normalised gradients, and of the mean square of gradients.
        eps: least divisor.
        weight_decay: decay per unit of learning rate. The authors' code couples it by default: decay=coupled.

    Reference: Taniguchi et al. 2024, https://arxiv.org/abs/2411.02853
    """
    return normalise_by_past, average, weight_decay and decoupled_decay, descend

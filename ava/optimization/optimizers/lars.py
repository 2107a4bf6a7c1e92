"""LARS."""

from __future__ import annotations

from ava.errors import InputError
from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.moments import along_gradient, heavy_ball
from ava.optimization.optimizers.stages.moments import nesterov as look_along
from ava.optimization.optimizers.stages.trust import apply_trust, measure_trust
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Lars")
def lars(
    lr: PositiveFloat = 10.0,
    momentum: Decay = 0.9,
    weight_decay: NonNegativeFloat = 1e-4,
    trust_coefficient: PositiveFloat = 1e-3,
    eps: NonNegativeFloat = 1e-8,
    nesterov: bool = False,
    always_adapt: bool = False,
) -> Words:
    """LARS: SGD at a rate of each layer's own, from its weights' and its gradient's length; for very large batches.

        l = trust_coefficient |p| / (|g| + wd |p| + eps), 1 if |p| or |g| is 0
        g <- l (g + wd p);  b <- mu b + g;  p <- p - lr b, or p - lr (g + mu b) with Nesterov

    A group without decay takes SGD's step, l = 1, unless `always_adapt`. The paper's momentum holds lr too, which is
    the same while lr stays; this is timm's rule. pytorch_optimizer's LARS leaves vectors out of decay and scaling.

    Args:
        lr: learning rate; a layer moves by about lr trust_coefficient / (1 - momentum) of its length.
        momentum: decay of the sum of scaled gradients; 0 keeps no state.
        weight_decay: decay, as part of the gradient.
        trust_coefficient: how far a layer may go, relative to its weights.
        eps: keeps the division from zero.
        nesterov: whether to look ahead along the momentum.
        always_adapt: whether groups without decay are scaled too.

    Raises:
        InputError: Nesterov without momentum.

    Reference: You et al. 2017, https://arxiv.org/abs/1708.03888
    """
    if nesterov and not momentum:
        raise InputError(
            f"Nesterov needs momentum above 0, not momentum={momentum}.", key="nesterov", value=nesterov,
            hint="Set momentum=0.9, or nesterov=false.",
        )  # fmt: skip
    adapted = weight_decay or always_adapt
    moment = heavy_ball if momentum else along_gradient
    return (
        adapted and measure_trust, weight_decay and coupled_decay, adapted and apply_trust, moment,
        nesterov and look_along, descend,
    )  # fmt: skip

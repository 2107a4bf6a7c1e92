"""RAdam."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.adam_family import divide_rectified
from ava.optimization.optimizers.stages.decay import coupled_decay
from ava.optimization.optimizers.stages.moments import adam_moments
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="RAdam")
def radam(
    lr: PositiveFloat = 3e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Words:
    """RAdam: Adam that distrusts its first second moments; trains without a warmup.

        rho_inf = 2 / (1 - b2) - 1;  rho = rho_inf - 2 t b2^t / (1 - b2^t);  g <- g + wd p;  m, v as in Adam
        rho > 5:  p <- p - lr (m / (1 - b1^t)) r sqrt(1 - b2^t) / (sqrt(v) + eps)
        else:     p <- p - lr m / (1 - b1^t)

    r = sqrt((rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho)). The paper rectifies above 4; like
    torch.optim and the authors' code this does above 5, and eps stands beside the uncorrected root.

    Args:
        lr: learning rate, up to three times Adam's; the first steps (5 of the default betas) are undivided and as
            long as the gradient.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero.
        weight_decay: decay, as part of the gradient.

    Reference: Liu et al. 2020, https://arxiv.org/abs/1908.03265
    """
    return weight_decay and coupled_decay, adam_moments, divide_rectified, descend

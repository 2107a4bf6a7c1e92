"""SOAP."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import ByShape
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.soap import (
    eigen_moments,
    into_basis,
    learn_basis,
    out_of_basis,
    waiting_moments,
)
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, PositiveInt, optimizer


@optimizer(title="SOAP")
def soap(
    lr: PositiveFloat = 3e-3,
    betas: tuple[Decay, Decay] = (0.95, 0.95),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
    precondition_frequency: PositiveInt = 10,
    max_precondition_dim: PositiveInt = 10000,
) -> ByShape:
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner; fewer steps, for more time and memory in each.

        L <- b2 L + (1 - b2) G G^T;  R <- b2 R + (1 - b2) G^T G;  QL, QR their eigenvectors
        M <- b1 M + (1 - b1) G;      V <- b2 V + (1 - b2) (QL^T G QR)^2
        P <- P - lr sqrt(bc2) / bc1 QL [(QL^T M QR) / (sqrt(V) + eps)] QR^T;  P <- (1 - lr wd) P

    As in the authors' code: the first step only finds the bases, the decay follows the update, and L and R learn last.
    A convolution's kernel is seen as a matrix of dim 0 rows. Vectors follow Adam, from the second step on too.

    Args:
        lr: learning rate.
        betas: decay of the mean, and of the mean square and of L and R.
        eps: keeps the division from zero, beside the root before its bias correction.
        weight_decay: decay per unit of learning rate.
        precondition_frequency: steps between two looks at L and R; on accelerators each step pays for one.
        max_precondition_dim: the greatest dimension that has a basis; larger ones are left as they are.

    Reference: Vyas et al. 2024, https://arxiv.org/abs/2409.11321
    """
    decay = weight_decay and decoupled_decay
    return ByShape(
        (eigen_moments, into_basis, divide, out_of_basis, descend, decay, learn_basis),
        (waiting_moments, divide, descend, decay),
    )

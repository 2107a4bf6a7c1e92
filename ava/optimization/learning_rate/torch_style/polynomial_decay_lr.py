"""PolynomialDecayLR: torch's PolynomialLR with a rate to end on."""

from __future__ import annotations

import torch

from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.schedules.polynomial import polynomial
from ava.optimization.learning_rate.torch_style.torch_style import TorchStyle
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, PositiveFloat, PositiveInt


class PolynomialDecayLR(TorchStyle):
    """Polynomial decay from every group's rate to `end_lr`, which is then kept.

        end_lr + (lr - end_lr) * (1 - step / total_steps) ** power

    Args:
        optimizer: any torch.optim.Optimizer.
        total_steps: steps of the decay; torch's `total_iters`.
        power: 1 is a line; the higher, the earlier and the deeper the decay.
        end_lr: the rate at the end, of every group.
        last_epoch: steps already taken less 1, as torch counts.

    Raises:
        InputError: an argument cannot be.

    Reference: Chen et al. 2016 (power 0.9), https://arxiv.org/abs/1606.00915
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        total_steps: int,
        power: float = 1.0,
        end_lr: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps: int = check("total_steps", total_steps, PositiveInt)
        self.power: float = check("power", power, PositiveFloat)
        self.end_lr: float = check("end_lr", end_lr, NonNegativeFloat)
        super().__init__(optimizer, end_lr=self.end_lr, last_epoch=last_epoch)

    def _factors(self, place: float) -> Factors:
        return polynomial(min(int(place), self.total_steps), self.total_steps, self.power)

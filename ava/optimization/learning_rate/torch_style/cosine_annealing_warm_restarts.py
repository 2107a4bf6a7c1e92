"""CosineAnnealingWarmRestarts, with the arguments of torch.optim.lr_scheduler's."""

from __future__ import annotations

import math

import torch

from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.schedules.cosine_restarts import cycle_of
from ava.optimization.learning_rate.torch_style.torch_style import TorchStyle
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, PositiveInt


class CosineAnnealingWarmRestarts(TorchStyle):
    """SGDR: cosine decay from every group's rate to `eta_min`, again and again, without an end.

        eta_min + (lr - eta_min) * (1 + cos(pi * t)) / 2    in a cycle of which t is done

    Args:
        optimizer: any torch.optim.Optimizer.
        T_0: steps (or epochs, if `step` is called with those) of the first cycle.
        T_mult: every cycle is that many times as long as the one before.
        eta_min: the rate that every cycle goes down to, of every group.
        last_epoch: steps already taken less 1, as torch counts.

    Raises:
        InputError: an argument cannot be.

    Reference: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        self.T_0: int = check("T_0", T_0, PositiveInt)
        self.T_mult: int = check("T_mult", T_mult, PositiveInt)
        self.eta_min: float = check("eta_min", eta_min, NonNegativeFloat)
        super().__init__(optimizer, end_lr=self.eta_min, last_epoch=last_epoch)

    def _factors(self, place: float) -> Factors:
        _, done = cycle_of(place, self.T_0, self.T_mult)
        return Factors((1 + math.cos(math.pi * done)) / 2)

"""OneCycleLR, with the arguments of torch.optim.lr_scheduler's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.schedules.onecycle import onecycle
from ava.optimization.learning_rate.torch_style.torch_style import TorchStyle
from ava.optimization.options import check
from ava.registry import Decay, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


class OneCycleLR(TorchStyle):
    """The 1cycle policy with its peak given here, whatever rate the optimizer was built with.

    The last rate is max_lr / final_div_factor; torch's is max_lr / (div_factor * final_div_factor). After
    `total_steps` the last rate is kept, where torch's raises. Momentum moves in groups that have one above 0.

    Args:
        optimizer: any torch.optim.Optimizer.
        max_lr: the peak of every group, or a list of every group's.
        total_steps: the training's length in optimizer steps; None is epochs * steps_per_epoch.
        epochs: number of epochs, where `total_steps` is None.
        steps_per_epoch: optimizer steps in each of them.
        pct_start: share of the steps on the way up.
        anneal_strategy: the shape of both ways.
        cycle_momentum: whether momentum (the first of `betas`) moves too, where there is one.
        base_momentum: momentum at the peak.
        max_momentum: momentum at both ends.
        div_factor: the first rate is max_lr / div_factor.
        final_div_factor: the last rate is max_lr / final_div_factor.
        last_epoch: steps already taken less 1, as torch counts.

    Raises:
        InputError: an argument cannot be.

    Reference: Smith & Topin 2018, https://arxiv.org/abs/1708.07120
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        *,
        last_epoch: int = -1,
    ) -> None:
        self.total_steps = _total(total_steps, epochs, steps_per_epoch)
        self._pct_start: float = check("pct_start", pct_start, Fraction)
        self._anneal: Literal["cosine", "linear"] = (
            "cosine" if check("anneal_strategy", anneal_strategy, Literal["cos", "linear"]) == "cos" else "linear"
        )
        self._divisors: tuple[float, float] = (
            check("div_factor", div_factor, PositiveFloat), check("final_div_factor", final_div_factor, PositiveFloat)
        )  # fmt: skip
        self._cycle_momentum: bool = check("cycle_momentum", cycle_momentum, bool)
        self._momenta: tuple[float, float] = (
            check("base_momentum", base_momentum, Decay), check("max_momentum", max_momentum, Decay)
        )  # fmt: skip
        super().__init__(optimizer, _peaks(optimizer, max_lr), last_epoch=last_epoch)

    def _factors(self, place: float) -> Factors:
        step = min(int(place), self.total_steps)
        return onecycle(
            step, self.total_steps, self._pct_start, *self._divisors, self._anneal, self._cycle_momentum, *self._momenta
        )


def _total(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """The training's length, of which there are two spellings."""
    if total_steps is not None:
        return int(check("total_steps", total_steps, PositiveInt))
    if epochs is None or steps_per_epoch is None:
        problem = "must be given, or both epochs and steps_per_epoch."
        raise InputError(problem, key="total_steps", value=None, hint="It is the length of the training in steps.")
    return int(check("epochs", epochs, PositiveInt) * check("steps_per_epoch", steps_per_epoch, PositiveInt))


def _peaks(optimizer: torch.optim.Optimizer, max_lr: float | Sequence[float]) -> list[float]:
    """Every group's peak."""
    groups = len(optimizer.param_groups)
    peaks = list(max_lr) if isinstance(max_lr, Sequence) else [max_lr] * groups
    if len(peaks) != groups:
        raise InputError(f"must be one rate, or {groups}, one a group.", key="max_lr", value=peaks)
    return [check("max_lr", peak, NonNegativeFloat) for peak in peaks]

"""The options of the adaptive learning rate."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

from ava.errors import InputError
from ava.optimization.learning_rate.adaptation.policy import OnPlateau, Policy
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class AdaptiveLRConfig:
    """When and how far the learning rate is changed.

    Attributes:
        initial_lr: the first rate; None is the optimizer's own.
        min_lr: the lowest rate; None is a thousandth of the first.
        max_lr: the highest rate; None is ten times the first.
        patience: steps without (or with) an improvement before a change, where there is no noise; at least so many
            in noise.
        cooldown: steps after a change that are not judged.
        reduction_factor: multiplies the rate on a plateau.
        increase_factor: multiplies it on steady improvement; 1 never raises it.
        loss_threshold: what an improvement has to exceed, as a share of the best loss.
        on_plateau: "reduce" the rate; or "restart" warm; or "warn" and change nothing.
        restart_steps: length of a restart's cycle.
        peak_factor: the first restart's peak over the rate.
        peak_decay: multiplies the peak from restart to restart.

    Raises:
        InputError: an option is not allowed.
    """

    initial_lr: PositiveFloat | None = None
    min_lr: NonNegativeFloat | None = None
    max_lr: PositiveFloat | None = None
    patience: PositiveInt = 10
    cooldown: NonNegativeInt = 5
    reduction_factor: Annotated[float, Gt(0), Lt(1)] = 0.5
    increase_factor: Annotated[float, Ge(1)] = 1.2
    loss_threshold: Annotated[float, Ge(0), Lt(1)] = 0.001
    on_plateau: OnPlateau = "reduce"
    restart_steps: PositiveInt = 200
    peak_factor: Annotated[float, Ge(1)] = 4.0
    peak_decay: Annotated[float, Gt(0), Le(1)] = 0.7

    def __post_init__(self) -> None:
        for name, annotation in typing.get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, check(name, getattr(self, name), annotation))

    def policy(self, lr: float) -> Policy:
        """The policy in multiples of the first rate.

        Raises:
            InputError: `lr` lies outside of the limits.
        """
        min_lr = lr / 1000 if self.min_lr is None else self.min_lr
        max_lr = lr * 10 if self.max_lr is None else self.max_lr
        for name, limit, fits in (("min_lr", min_lr, min_lr <= lr), ("max_lr", max_lr, lr <= max_lr)):
            if not fits:
                side = "at most" if name == "min_lr" else "at least"
                raise InputError(f"must be {side} the first rate, {lr:g}.", key=name, value=limit)
        return Policy(
            self.patience, self.loss_threshold, True, self.cooldown, self.reduction_factor, self.increase_factor,
            min_lr / lr, max_lr / lr, self.on_plateau, self.restart_steps, self.peak_factor, self.peak_decay,
        )  # fmt: skip

"""What the schedulers of this package have in common: torch's methods over a function of the place.

    rate = end_lr + (base_lr - end_lr) * factor(place)

The place is the number of steps taken; between two of them, where `step` was given a fraction. A class says what the
factor is. Unlike torch's, nothing is computed from the rate before, so rounding errors do not add up, and loading a
state sets the rates.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import torch

from ava.errors import InputError
from ava.optimization.learning_rate import hyperparameters
from ava.optimization.learning_rate.factors import Factors


class TorchStyle(abc.ABC):
    """Moves the rates of an optimizer along a function of the place, with the methods of torch's schedulers.

    Args:
        optimizer: any torch.optim.Optimizer; its groups' first rates are set at once.
        base_lrs: every group's base rate; None is the rate it was given, `initial_lr`.
        end_lr: the rate at factor 0, of every group.
        last_epoch: steps already taken less 1, as torch counts; groups then need the `initial_lr` of those.

    Attributes:
        optimizer: the same.
        base_lrs: every group's base rate.

    Raises:
        InputError: an argument cannot be, or a group leaves its rate to the optimizer.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base_lrs: Sequence[float] | None = None,
        end_lr: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError("must be a torch.optim.Optimizer.", key="optimizer", value=type(optimizer).__name__)
        if not isinstance(last_epoch, int) or last_epoch < -1:
            raise InputError("must be a whole number, at least -1.", key="last_epoch", value=last_epoch)
        self.optimizer, self._end_lr = optimizer, end_lr
        self.base_lrs = list[float]()
        if last_epoch != -1 and any("initial_lr" not in group for group in optimizer.param_groups):
            problem = "goes on, but the groups have no initial_lr to go on from."
            raise InputError(problem, key="last_epoch", value=last_epoch, hint="Load the optimizer's state first.")
        for group, base in zip(optimizer.param_groups, base_lrs or [], strict=base_lrs is not None):
            group["initial_lr"] = base
        self._place: float = last_epoch + 1
        self._apply()

    @property
    def last_epoch(self) -> int:
        """Whole steps taken."""
        return math.floor(self._place)

    def step(self, epoch: float | None = None) -> None:
        """Set every group to what the next optimizer step uses.

        Args:
            epoch: the place to go to; None is one step on. A fraction, such as `epoch + batch / num_batches`, lies
                between two steps.

        Raises:
            InputError: `epoch` is negative or no number.
        """
        self._move(self._place + 1 if epoch is None else epoch)

    def get_last_lr(self) -> list[float]:
        """The learning rate of every group, as the next optimizer step uses it."""
        factor = self._factors(self._place).lr
        return [self._end_lr + (base - self._end_lr) * factor for base in self._bases()]

    def state_dict(self) -> dict[str, Any]:
        """The place and the base rates, as plain values; what the class was built with is not among them."""
        return {"place": self._place, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a place; the optimizer's rates follow.

        Raises:
            InputError: the state is not this class's, or of another number of groups.
        """
        if not {"place", "base_lrs"} <= state_dict.keys():
            problem = f"must be what `state_dict()` of {type(self).__name__} gives."
            raise InputError(problem, key="state_dict", value=", ".join(map(str, state_dict)) or "empty")
        bases, groups = list(state_dict["base_lrs"]), len(self.optimizer.param_groups)
        if len(bases) != groups:
            raise InputError(f"must be {groups} rates, one a group.", key="base_lrs", value=bases)
        self.base_lrs = bases
        self._move(state_dict["place"])

    @abc.abstractmethod
    def _factors(self, place: float) -> Factors:
        """The multiplier between `end_lr` and the base rates after `place` steps, and the momentum."""

    def _move(self, place: float) -> None:
        if isinstance(place, bool) or not isinstance(place, int | float) or not 0 <= place < math.inf:
            raise InputError("must be a number, at least 0.", key="epoch", value=place)
        self._place = place
        self._apply()

    def _bases(self) -> list[float]:
        """Every group's base rate; that of a group which came later is the rate it came with."""
        for index, group in enumerate(self.optimizer.param_groups[len(self.base_lrs) :], start=len(self.base_lrs)):
            base = hyperparameters.remember(group, "lr")
            if base is None:
                problem = "leaves the rate to the optimizer, so there is none to schedule."
                raise InputError(problem, key=f"param_groups[{index}].lr", hint="Give it an lr.")
            self.base_lrs.append(base)
        return self.base_lrs

    def _apply(self) -> None:
        momentum = self._factors(self._place).momentum
        for group, rate in zip(self.optimizer.param_groups, self.get_last_lr(), strict=True):
            hyperparameters.write(group, "lr", rate)
            if momentum is not None and hyperparameters.remember(group, "momentum"):
                hyperparameters.write(group, "momentum", momentum)

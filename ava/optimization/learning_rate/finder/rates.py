"""An optimizer's learning rate as one number: its groups keep their ratios."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.learning_rate import hyperparameters


class Rates:
    """Moves all groups of an optimizer together: lr of a group <- its own lr * rate / reference.

    The reference is the rate the optimizer was built with, or the largest group's where it was given none; a group's
    own is what a schedule would multiply (`initial_lr`), or what it has.

    Args:
        optimizer: any torch.optim.Optimizer.

    Raises:
        InputError: a group leaves its rate to the optimizer (lr is None), or all rates are 0.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        groups = optimizer.param_groups
        if any(group.get("lr") is None for group in groups):
            raise InputError(
                "the optimizer chooses its own learning rate (lr is null), so there is none to find.",
                hint="Give the optimizer an lr (its value does not matter), or train without the test.",
            )
        self._groups = groups
        self._own = [float(group.get("initial_lr", group["lr"])) for group in groups]
        default = _number(optimizer.defaults.get("lr"))
        self.reference = default or max(self._own)
        if self.reference == 0:
            raise InputError("every group's learning rate is 0.", key="lr", value=0, hint="Give the optimizer an lr.")

    def set(self, rate: float, momentum: float | None = None) -> None:
        """Give every group its share of a rate, and a momentum where it has one."""
        for group, own in zip(self._groups, self._own, strict=True):
            lr = own * (rate / self.reference)
            if isinstance(group["lr"], Tensor):  # which a captured step reads: that very one
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
            if momentum is not None and hyperparameters.read(group, "momentum"):
                hyperparameters.write(group, "momentum", momentum)


def _number(lr: Any) -> float:
    """A rate as a number; 0 where it is none."""
    is_number = isinstance(lr, int | float) or (isinstance(lr, Tensor) and lr.numel() == 1)
    return float(lr) if is_number else 0.0

"""A schedule, applied to an optimizer.

The schedule is a pure function of the step. The checkpoint is the step, and everything else is computed anew from
it and from each group's base learning rate, `group["initial_lr"]`, which the optimizer's own checkpoint keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.warmup import warm_up


class Scheduler:
    """Moves the learning rate, and the momentum where the shape says so, of every group of an optimizer.

    Built after the optimizer, it sets the first step's rate at once; `step()` belongs after `optimizer.step()`.

    Args:
        optimizer: any torch.optim.Optimizer. Momentum goes to `momentum` where it is not 0, or to the first of
            `betas`; groups with neither keep to the learning rate.
        shape: (step, total) -> Factors, such as `functools.partial(cosine, floor=0.1)`.
        total_steps: the training's length in optimizer steps; later steps keep the last value.
        warmup_steps: steps of linear rise, for a shape that has no such option; they count in `total_steps`.

    Raises:
        InputError: `total_steps` is not positive, or `warmup_steps` not below it; or the schedule moves a rate that a
            group leaves to its optimizer (`lr=None`).
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        shape: Callable[[int, int], Factors],
        total_steps: int,
        warmup_steps: int = 0,
    ) -> None:
        self.optimizer, self.shape = optimizer, shape
        self.total_steps, self.warmup_steps = total_steps, warmup_steps
        self._step = 0
        self._refuse_to_move_nothing()
        self._apply()

    def step(self) -> None:
        """Set every group to what the next optimizer step uses."""
        self._step += 1
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The learning rate of every group, as the next optimizer step uses it; NaN where the optimizer chooses it."""
        factor = self.factors().lr
        return [float(group.get("initial_lr", "nan")) * factor for group in self.optimizer.param_groups]

    def factors(self) -> Factors:
        """What the shape says about the next optimizer step."""
        return self._factors_of(self._step)

    def _factors_of(self, now: int) -> Factors:
        step, length, rise = warm_up(now, self.total_steps, self.warmup_steps)
        factors = self.shape(step, length)
        return factors if rise == 1.0 else Factors(rise * factors.lr, factors.momentum)

    def state_dict(self) -> dict[str, Any]:
        """The step."""
        return {"step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a step; the rates follow from it.

        Raises:
            InputError: the state is not a scheduler's.
        """
        step = state_dict.get("step")
        if not isinstance(step, int) or step < 0:
            raise InputError("must be a number of steps, as `state_dict()` gives it.", key="step", value=step)
        self._step = step
        self._apply()

    def _refuse_to_move_nothing(self) -> None:
        """A rate that the optimizer chooses cannot be multiplied."""
        if all(group["lr"] is not None for group in self.optimizer.param_groups):
            return
        # A schedule that moves at all has moved by its middle or its end, a warmup at its beginning.
        if any(self._factors_of(step).lr != 1.0 for step in (0, self.total_steps // 2, self.total_steps)):
            raise InputError(
                "the optimizer chooses its own learning rate (lr is null), so there is none to schedule.",
                hint="Use the constant schedule without warmup, or give the optimizer an lr.",
            )

    def _apply(self) -> None:
        factors = self.factors()
        for group in self.optimizer.param_groups:
            # All before any is moved: groups may share one tensor.
            if "initial_lr" not in group and group["lr"] is not None:
                group["initial_lr"] = float(group["lr"])
        for group in self.optimizer.param_groups:
            _set_rate(group, factors.lr)
            if factors.momentum is not None:
                _set_momentum(group, factors.momentum)


def _set_rate(group: dict[str, Any], factor: float) -> None:
    """Set a group's rate; a tensor is filled in place, for a captured or compiled step reads that very tensor."""
    lr = group["lr"]
    if lr is None:
        return
    if isinstance(lr, Tensor):
        lr.fill_(group["initial_lr"] * factor)
    else:
        group["lr"] = group["initial_lr"] * factor


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    if group.get("momentum"):
        group["momentum"] = momentum
    elif "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])

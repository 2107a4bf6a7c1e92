"""OneCycleLR, with the arguments of torch.optim.lr_scheduler's."""

from __future__ import annotations

import functools
from typing import Any

import torch

from ava.optimization.learning_rate.scheduler import Scheduler
from ava.optimization.learning_rate.schedules.onecycle import onecycle


class OneCycleLR:
    """The 1cycle policy with its peak given here, whatever rate the optimizer was built with.

    Args:
        optimizer: any torch.optim.Optimizer.
        max_lr: the peak of every group.
        total_steps: the training's length in optimizer steps.
        pct_start: share of the steps on the way up.
        div_factor: the first rate is max_lr / div_factor.
        final_div_factor: the last rate is max_lr / final_div_factor.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        max_lr: float,
        total_steps: int,
        pct_start: float = 0.3,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        for group in optimizer.param_groups:
            group["initial_lr"] = max_lr
        shape = functools.partial(
            onecycle, pct_start=pct_start, div_factor=div_factor, final_div_factor=final_div_factor
        )  # fmt: skip
        self.optimizer = optimizer
        self._scheduler = Scheduler(optimizer, shape, total_steps)

    def step(self) -> None:
        """Set every group to what the next optimizer step uses."""
        self._scheduler.step()

    def get_last_lr(self) -> list[float]:
        """The learning rate of every group, as the next optimizer step uses it."""
        return self._scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """The step."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a step."""
        self._scheduler.load_state_dict(state_dict)

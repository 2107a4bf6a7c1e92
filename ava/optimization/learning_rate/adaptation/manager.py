"""Adapts an optimizer's learning rate to its losses."""

from __future__ import annotations

import warnings
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError, nearest
from ava.optimization.learning_rate import hyperparameters
from ava.optimization.learning_rate.adaptation.adaptation import Adaptation
from ava.optimization.learning_rate.adaptation.config import AdaptiveLRConfig
from ava.optimization.learning_rate.change import Change


class AdaptiveLearningRateManager:
    """Lowers the rate on a plateau and raises it on steady improvement; noise alone is taken for neither.

    Call `step(loss)` once per training step or per validation: its calls are the steps that options count.

    Args:
        optimizer: any torch.optim.Optimizer; the ratios between its groups' rates are kept.
        config: the options; the limits on the rate are those of the first group.
        options: the same by name, beside a config or instead of one.

    Attributes:
        changes: all that was done, in learning rates.

    Raises:
        InputError: an option is not allowed, or a group leaves the rate to its optimizer (lr=None).
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, config: AdaptiveLRConfig | None = None, **options: Any
    ) -> None:
        known = [field.name for field in fields(AdaptiveLRConfig)]
        for name in options:
            if name not in known:
                problem = f"there is no option {name!r}; there are: {', '.join(known)}."
                raise InputError(problem, hint=nearest(name, known))
        self.config = replace(config or AdaptiveLRConfig(), **options)
        self.optimizer = optimizer
        self.changes: list[Change] = []
        rates = [_rate(i, group) for i, group in enumerate(optimizer.param_groups)]
        self._lr = rates[0] if self.config.initial_lr is None else self.config.initial_lr
        if not rates[0] > 0:
            problem = "the first group's learning rate must be above 0, for all others follow it."
            raise InputError(problem, key="lr", value=rates[0])
        self._bases = [rate * (self._lr / rates[0]) for rate in rates]
        self._adaptation = Adaptation(self.config.policy(self._lr))
        self._step, self._factor = 0, 1.0
        self._set()

    @property
    def num_ignored(self) -> int:
        """Losses that were not finite; they measure nothing, and are left out."""
        return self._adaptation.num_ignored

    def step(self, loss: float | Tensor) -> Change | None:
        """Take in the next loss, and set the rate of every group.

        Args:
            loss: a number or a tensor of one element.

        Returns:
            What was done, in the first group's learning rate; None if nothing was.
        """
        self._step += 1
        change = self._adaptation.observe(self._step, float(loss))
        self._take_in_groups()
        factor = self._adaptation.factor(self._step)
        if factor != self._factor:
            self._factor = factor
            self._set()
        if change is None:
            return None
        change = replace(change, before=change.before * self._lr, after=change.after * self._lr)
        if change.action == "warn" and all(earlier.action != "warn" for earlier in self.changes):
            warnings.warn(f"step {self._step}: the loss has stopped improving, at {change.smoothed:.6g}.", stacklevel=2)
        self.changes.append(change)
        return change

    def get_current_lr(self) -> float:
        """The first group's learning rate, as the next optimizer step uses it."""
        return self._lr * self._factor

    def _take_in_groups(self) -> None:
        """Let groups that were added take part, from the rate that they were given."""
        groups = self.optimizer.param_groups
        self._bases += [_rate(i, groups[i]) / self._factor for i in range(len(self._bases), len(groups))]

    def _set(self) -> None:
        for group, base in zip(self.optimizer.param_groups, self._bases, strict=True):
            hyperparameters.write(group, "lr", base * self._factor)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        return {
            "step": self._step, "lr": self._lr, "bases": list(self._bases), "factor": self._factor,
            "changes": [asdict(change) for change in self.changes], "adaptation": self._adaptation.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from them, exactly, and set the rate of every group.

        Raises:
            InputError: they are not a manager's, or another number of groups was saved.
        """
        if "adaptation" not in state_dict:
            raise InputError("the state is not a manager's.", hint="Load what its state_dict() gave.")
        bases, groups = list(state_dict["bases"]), self.optimizer.param_groups
        if len(bases) != len(groups):
            raise InputError(f"the state is of {len(bases)} param groups, and the optimizer has {len(groups)}.")
        self._step, self._lr, self._factor = state_dict["step"], state_dict["lr"], state_dict["factor"]
        self._bases = bases
        self.changes = [Change(**change) for change in state_dict["changes"]]
        self._adaptation = Adaptation(self.config.policy(self._lr))
        self._adaptation.load_state_dict(state_dict["adaptation"])
        self._set()


def _rate(index: int, group: dict[str, Any]) -> float:
    if group["lr"] is None:
        problem = "the optimizer chooses its own learning rate (lr is None), so there is none to adapt."
        raise InputError(problem, key=f"param_groups[{index}].lr", value=None, hint="Give the optimizer an lr.")
    return float(group["lr"])

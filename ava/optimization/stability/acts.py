"""What is done about hindrance, as numbers: floats on a processor, 0-dim tensors on an accelerator."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.arithmetic import maximum, minimum, where
from ava.optimization.stability.loss import on
from ava.optimization.stability.verdict import Number, Verdict

IDLE = frozenset({"stagnation", "vanishing"})
"""Causes against which going slower is no help: training stands nearly still already."""


@dataclass(frozen=True)
class Act:
    """What a step is changed by.

    Attributes:
        rate: factor on the learning rate.
        gradient: factor on all gradients.
        skip: above 0 where the step is left out: parameters, state and counters stay.
    """

    rate: Number = 1.0
    gradient: Number = 1.0
    skip: Number = 0.0

    def and_then(self, other: Act) -> Act:
        """Both together: factors multiply, and either may skip."""
        return Act(self.rate * other.rate, self.gradient * other.gradient, maximum(self.skip, other.skip))


def rush(verdict: Verdict) -> Number:
    """How much of the hindrance going slower helps against.

        1 - prod(1 - severity)    over all causes but stagnation and vanishing

    Args:
        verdict: on a step.

    Returns:
        From 0 to 1; 0-dim on an accelerator.
    """
    calm: Number = 1.0
    for name, severity in verdict.causes.items():
        if name not in IDLE:
            calm = calm * (1.0 - severity)
    return 1.0 - calm


def act_of(name: str, said: Any, device: torch.device) -> Act:
    """What a response said, if it can be done.

    Args:
        name: the response's, for the message.
        said: what it returned.
        device: where numbers live. What is a tensor on an accelerator is not read: below 0 counts as 0 there, and what
            is not finite as nothing said.

    Raises:
        InputError: it is no Act, or one of its numbers is negative or not finite.
    """
    if not isinstance(said, Act):
        hint = "Return Act(), with a rate, a gradient or a skip, of ava.optimization.stability.acts."
        raise InputError(f"response {name} has to return an Act, not {said!r}.", hint=hint)
    idle = Act()
    rate, gradient, skip = (
        _factor(f"{key} of response {name}", getattr(said, key), getattr(idle, key), device)
        for key in ("rate", "gradient", "skip")
    )
    return Act(rate, gradient, skip)


def _factor(owner: str, value: Any, idle: Number, device: torch.device) -> Number:
    if isinstance(value, Tensor):
        value = on(device, value)
        if isinstance(value, Tensor):
            found: Number = where(value.isfinite(), maximum(value, 0.0), idle)
            return found
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise InputError(f"the {owner} has to be a finite number at least 0, not {value!r}.")
    return float(value)


def share_of(name: str, said: Any) -> Number:
    """What a momentum schedule said, brought to [0, 1]; 1 where it is not a number (NaN).

    Raises:
        InputError: it is neither a number nor a tensor.
    """
    if isinstance(said, Real):
        said = float(said)
    elif not isinstance(said, Tensor):
        raise InputError(f"momentum schedule {name} has to return a number from 0 to 1, not {said!r}.")
    share: Number = where(said == said, maximum(minimum(said, 1.0), 0.0), 1.0)
    return share

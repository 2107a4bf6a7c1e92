"""How AGMOHD's rate moves: the option `lr_scheduler` as a factor on every group's rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ava.optimization.learning_rate.schedules.cosine import cosine
from ava.optimization.learning_rate.schedules.cosine_restarts import cosine_restarts
from ava.optimization.learning_rate.schedules.step import step as stairs
from ava.optimization.learning_rate.schedules.triangular import triangular


def factor_of(scheduler: str, step: int, length: int, total: int | None = None) -> float:
    """The factor on the rate after some steps.

        cyclical   up from 1/4 to 1 and down again within `length` steps
        cosine     from 1 to 0 within `total` steps; where that is not known, within `length`, again and again
        step       times 1/10 after every `length` steps, or every 30 % of `total`

    Args:
        scheduler: none, cyclical, cosine or step.
        step: optimizer steps taken.
        length: of a cycle, or between two drops.
        total: length of the training in steps, if it is known.
    """
    if scheduler == "cyclical":
        up = max(1, length // 2)
        return triangular(step, length, step_size_up=up, step_size_down=max(1, length - up), cycle_momentum=False).lr
    if scheduler == "cosine":
        if total is not None:
            return cosine(min(step, total), total).lr
        return cosine_restarts(step, 2**62, T_0=length).lr
    if scheduler == "step":
        return stairs(step, 0, step_size=length if total is None else max(1, round(0.3 * total))).lr
    return 1.0


def is_moved(group: Mapping[str, Any]) -> bool:
    """Whether a scheduler has moved a param group's rate from where it was given; of one on an accelerator: perhaps."""
    if "initial_lr" not in group:
        return False
    rates = (group["lr"], group["initial_lr"])
    return any(isinstance(rate, Tensor) and not rate.is_cpu for rate in rates) or bool(rates[0] != rates[1])

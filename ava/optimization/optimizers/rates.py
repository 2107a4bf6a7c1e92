"""Learning rates as they come from Python."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ava.errors import InputError
from ava.optimization.options import check
from ava.registry import NonNegativeFloat


def check_rate(lr: Any, annotation: Any) -> Any:
    """A learning rate: from Python also 0, where groups are frozen, and a tensor, which a compiled step can follow."""
    if lr is None:
        return check("lr", lr, annotation)
    if not isinstance(lr, Tensor):
        return check("lr", lr, NonNegativeFloat)
    if lr.numel() != 1:
        raise InputError("must be one number.", key="lr", value=tuple(lr.shape))
    check("lr", lr.item(), NonNegativeFloat)
    return lr

"""Numbers from users, plugins and loops: what is none is refused, with the name of what was asked for."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.stability.verdict import Number


def measured(key: str, value: Any, *, may_be_negative: bool = False) -> Number:
    """What somebody measured: one real number, which need not be finite.

    Args:
        key: what it is called, for the message.
        value: a number of Python or NumPy, or a tensor of one element, which is not read.
        may_be_negative: whether it may be below 0; minus infinity always may.

    Returns:
        A float, or a detached 0-dim tensor.

    Raises:
        InputError: it is no such number.
    """
    if isinstance(value, Tensor):
        if value.numel() != 1 or value.is_complex() or value.dtype is torch.bool:
            kind = f"{value.dtype} of shape {tuple(value.shape)}"
            raise InputError("must be one real number.", key=key, value=kind, hint="Pass its mean, or its norm.")
        return value.detach().reshape(())
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError("must be a number or a tensor of one element.", key=key, value=value)
    number = float(value)
    if not may_be_negative and -math.inf < number < 0:
        raise InputError("must be at least 0.", key=key, value=number)
    return number


def told(key: str, value: Any, *, may_be_zero: bool = False) -> float:
    """What somebody plans: one finite number above 0.

    Args:
        key: what it is called, for the message.
        value: a number of Python or NumPy, or a tensor of one element, which is read.
        may_be_zero: whether 0 is allowed too.

    Raises:
        InputError: it is no such number.
    """
    number = float(measured(key, value, may_be_negative=True))
    if not math.isfinite(number) or number < 0 or (number == 0 and not may_be_zero):
        raise InputError(f"must be a finite number {'at least' if may_be_zero else 'above'} 0.", key=key, value=number)
    return number

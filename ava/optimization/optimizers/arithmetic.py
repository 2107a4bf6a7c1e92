"""The functions that rules are written in beside + - * / ** and comparison.

Each takes whatever an operand is: a number (then it gives a number), a torch tensor, or a symbol whose operations an
engine records. A comparison gives something true or false, which `where` and multiplication take.
"""

from __future__ import annotations

import math
from typing import Any

from ava.optimization.optimizers.sentence import Operand

_NUMBERS = (bool, int, float)


def sqrt(x: Operand | float) -> Any:
    """The square root."""
    return math.sqrt(x) if isinstance(x, _NUMBERS) else x.sqrt()


def exp(x: Operand | float) -> Any:
    """The exponential."""
    return math.exp(x) if isinstance(x, _NUMBERS) else x.exp()


def log(x: Operand | float) -> Any:
    """The natural logarithm; minus infinity of 0."""
    if isinstance(x, _NUMBERS):
        return math.log(x) if x > 0 else -math.inf
    return x.log()


def cos(x: Operand | float) -> Any:
    """The cosine."""
    return math.cos(x) if isinstance(x, _NUMBERS) else x.cos()


def absolute(x: Operand | float) -> Any:
    """The magnitude."""
    return abs(x) if isinstance(x, _NUMBERS) else x.abs()


def sign(x: Operand | float) -> Any:
    """-1, 0 or 1."""
    return float((x > 0) - (x < 0)) if isinstance(x, _NUMBERS) else x.sign()


def maximum(x: Operand | float, y: Operand | float) -> Any:
    """The larger one, element by element."""
    if isinstance(x, _NUMBERS):
        return max(x, y) if isinstance(y, _NUMBERS) else y.clamp(min=x)
    return x.clamp(min=y) if isinstance(y, _NUMBERS) else x.maximum(y)


def minimum(x: Operand | float, y: Operand | float) -> Any:
    """The smaller one, element by element."""
    if isinstance(x, _NUMBERS):
        return min(x, y) if isinstance(y, _NUMBERS) else y.clamp(max=x)
    return x.clamp(max=y) if isinstance(y, _NUMBERS) else x.minimum(y)


def atan2(y: Operand, x: Operand) -> Any:
    """The angle of the point (x, y), in [-pi, pi]; 0 of (0, 0)."""
    return math.atan2(y, x) if isinstance(y, _NUMBERS) else y.atan2(x)


def where(condition: Operand | bool, x: Operand | float, y: Operand | float) -> Any:
    """`x` where the condition holds, else `y`; what is not chosen may be NaN."""
    if isinstance(condition, _NUMBERS):
        return x if condition else y
    if hasattr(condition, "choose"):
        return condition.choose(x, y)
    import torch

    return torch.where(condition, x, y)

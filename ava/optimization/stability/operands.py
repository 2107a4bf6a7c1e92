"""The arithmetic that detectors are written in, of Python floats and of 0-dim tensors alike.

It is that of `ava.optimization.optimizers.arithmetic`, with a short way for floats and bools: on a processor a
judgement is a few hundred of these calls, and the general ones look longer at what they are given than they compute.
"""

from __future__ import annotations

from typing import Any

from ava.optimization.optimizers import arithmetic
from ava.optimization.optimizers.arithmetic import absolute as absolute
from ava.optimization.optimizers.arithmetic import exp as exp
from ava.optimization.optimizers.arithmetic import log as log
from ava.optimization.optimizers.arithmetic import sign as sign
from ava.optimization.optimizers.arithmetic import sqrt as sqrt


def where(condition: Any, x: Any, y: Any) -> Any:
    """`x` where the condition holds, else `y`."""
    if condition is True:
        return x
    if condition is False:
        return y
    return arithmetic.where(condition, x, y)


def maximum(x: Any, y: Any) -> Any:
    """The larger one."""
    if x.__class__ is float and y.__class__ is float:
        return x if x > y else y
    return arithmetic.maximum(x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller one."""
    if x.__class__ is float and y.__class__ is float:
        return x if x < y else y
    return arithmetic.minimum(x, y)


def clamp(x: Any, low: Any, high: Any) -> Any:
    """`x`, but at least `low` and at most `high`."""
    if x.__class__ is float and low.__class__ is float and high.__class__ is float:
        return low if x < low else high if x > high else x
    return arithmetic.minimum(arithmetic.maximum(x, low), high)

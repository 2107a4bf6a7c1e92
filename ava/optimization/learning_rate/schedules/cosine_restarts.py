"""Cosine decay with warm restarts."""

from __future__ import annotations

import math

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.registry import Fraction, Length, PositiveInt, scheduler

_ROUNDING = 1e-9
"""Shares of a cycle below this are rounding errors, of a length that is no whole number."""


@scheduler
def cosine_restarts(
    step: int,
    total: int,
    /,
    T_0: Length = 0.25,
    T_mult: PositiveInt = 1,
    floor: Fraction = 0.0,
    peak_decay: Fraction = 1.0,
) -> Factors:
    """SGDR: cosine decay to `floor`, again and again; each cycle's end is a model worth keeping.

        floor + (peak_decay ** i - floor) * (1 + cos(pi * t)) / 2    in cycle i = 0, 1, ..., of which t is done

    A restart that would fall on the end of the training is left out, so that the training ends on a cycle's floor.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        T_0: length of the first cycle; a share of the training need not be a whole number of steps.
        T_mult: every cycle is that many times as long as the one before.
        floor: multiplier that every cycle goes down to.
        peak_decay: every cycle's peak over that of the one before; peaks end at `floor`.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: the first cycle has no length.

    Reference: Loshchilov & Hutter 2017, https://arxiv.org/abs/1608.03983
    """
    if T_0 == 0:
        raise InputError("must be above 0: a cycle needs steps.", key="T_0", value=T_0, hint="Such as 0.25 or 1000.")
    length = T_0 if isinstance(T_0, int) else max(1.0, T_0 * total)
    cycle, done = cycle_of(step, length, T_mult)
    if step == total and done == 0 and cycle > 0:
        cycle, done = cycle - 1, 1.0
    peak = max(floor, peak_decay**cycle)
    return Factors(floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2)


def cycle_of(step: float, first: float, growth: int) -> tuple[int, float]:
    """Where a step lies in cycles of which each is `growth` times as long as the one before.

    Args:
        step: from 0 on; it may lie between two steps.
        first: length of the first cycle, above 0.
        growth: a whole number of at least 1.

    Returns:
        The number of the cycle, counted from 0, and the share of it that is done, at least 0 and below 1.
    """
    if growth == 1:
        whole, rest = divmod(step, first)
        cycle, done = int(whole), rest / first
    else:
        cycle, length = 0, first
        while step >= length:
            step, length, cycle = step - length, length * growth, cycle + 1
        done = step / length
    if done > 1 - _ROUNDING:
        return cycle + 1, 0.0
    return cycle, done if done > _ROUNDING else 0.0

"""Lengths in steps, or in shares of a training."""

from __future__ import annotations

import sys

from ava.errors import InputError


def in_steps(length: int | float, total: int) -> int:
    """A length in steps.

    Args:
        length: a whole number is steps; a fraction, such as 0.1, a share of `total`.
        total: length of the training in steps.

    Returns:
        The nearest number of steps; at least 1 where the share is above 0.

    Raises:
        InputError: a share of a training without an end.
    """
    if isinstance(length, int):
        return length
    if total == sys.maxsize and length > 0:
        problem = "is a share of the training, which has no end (total_steps=None)."
        raise InputError(problem, key="length", value=length, hint="Give the length in steps.")
    return max(1, round(length * total)) if length > 0 else 0

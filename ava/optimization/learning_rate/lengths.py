"""Lengths in steps, or in shares of a training."""

from __future__ import annotations


def in_steps(length: int | float, total: int) -> int:
    """A length in steps.

    Args:
        length: a whole number is steps; a fraction, such as 0.1, a share of `total`.
        total: length of the training in steps.

    Returns:
        The nearest number of steps; at least 1 where the share is above 0.
    """
    if isinstance(length, int):
        return length
    return max(1, round(length * total)) if length > 0 else 0

"""Warmup: the same linear rise before every schedule.

At step k < W of W warmup steps the rate is the schedule's own value of step 0, times (k + 1) / (W + 1); then the
schedule runs over the remaining total - W steps. So the first step already moves, and the rise ends where it begins.
"""

from __future__ import annotations

from ava.errors import InputError


def warm_up(step: int, total: int, warmup_steps: int) -> tuple[int, int, float]:
    """The schedule's own clock, and the factor of the rise.

    Args:
        step: optimizer steps taken, >= 0.
        total: length of warmup and schedule together, in steps.
        warmup_steps: length of the rise, below `total`; 0 is none.

    Returns:
        The step (at most `length`) and length of the schedule after the warmup, and the multiplier on its value.

    Raises:
        InputError: the warmup leaves the schedule no step.
    """
    if total < 1:
        raise InputError("must be at least 1.", key="total_steps", value=total)
    if not 0 <= warmup_steps < total:
        raise InputError(
            f"must be at least 0 and below total_steps={total}.", key="warmup_steps", value=warmup_steps,
            hint="Warm up for fewer steps or train for more.",
        )  # fmt: skip
    length = total - warmup_steps
    if step < warmup_steps:
        return 0, length, (step + 1) / (warmup_steps + 1)
    return min(step - warmup_steps, length), length, 1.0

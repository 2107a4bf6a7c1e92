"""Cyclical learning rates."""

from __future__ import annotations

from typing import Literal

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.lengths import in_steps
from ava.registry import Decay, Fraction, Length, scheduler


@scheduler
def triangular(
    step: int,
    total: int,
    /,
    step_size_up: Length = 0.125,
    step_size_down: Length | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: Fraction = 1.0,
    base_factor: Fraction = 0.25,
    cycle_momentum: bool = True,
    base_momentum: Decay = 0.8,
    max_momentum: Decay = 0.9,
) -> Factors:
    """Cyclical rates: straight up to the given rate and straight down again, momentum the other way.

        base_factor + (1 - base_factor) * height * scale

    `height` goes from 0 to 1 in `step_size_up` steps and back in `step_size_down`; `scale` is 1, 1/2 ** cycle
    (triangular2) or gamma ** step (exp_range). The group's rate is torch's max_lr; base_factor is base_lr / max_lr.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        step_size_up: length of the way up; 0 starts a cycle at its peak.
        step_size_down: length of the way down; null is that of the way up.
        mode: what becomes of the peaks: they stay, or halve with each cycle, or decay with each step.
        gamma: what a step leaves of the peaks' height, for exp_range.
        base_factor: multiplier at the foot of the cycles.
        cycle_momentum: whether momentum (the first of `betas`) moves too, where there is one.
        base_momentum: momentum at a peak of full height.
        max_momentum: momentum at the foot.

    Returns:
        The multiplier on every group's peak rate, and the momentum.

    Raises:
        InputError: a cycle has no step.

    Reference: Smith 2017, https://arxiv.org/abs/1506.01186
    """
    up = in_steps(step_size_up, total)
    down = up if step_size_down is None else in_steps(step_size_down, total)
    if up + down == 0:
        problem = "must be above 0 where step_size_down is not: a cycle needs steps."
        raise InputError(problem, key="step_size_up", value=step_size_up, hint="Such as 0.125 or 1000.")
    cycle, place = divmod(step, up + down)
    height = place / up if place < up else (up + down - place) / down
    height *= {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**step}[mode]
    momentum = max_momentum - (max_momentum - base_momentum) * height if cycle_momentum else None
    return Factors(base_factor + (1 - base_factor) * height, momentum)

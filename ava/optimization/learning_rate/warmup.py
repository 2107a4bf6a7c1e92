"""Warmup: a rise before any schedule.

In W steps of warmup the factor rises from `start` at step 0 to 1 at step W, along a line, a cosine, an exponential or a
curve of the user's; it multiplies the schedule's own value of step 0. From step W on the schedule runs over the
remaining total - W steps. Unless it is given, `start` is 1 / (W + 1), one step's share of the way: so the first
step already moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors, Shape
from ava.optimization.learning_rate.lengths import in_steps

Kind = Literal["linear", "cosine", "exponential", "custom"]
Curve = Sequence[float] | Callable[[float], float]
"""Factors in even distances over the warmup, or a function from the share done, 0 to 1, to the factor."""


@dataclass(frozen=True)
class Warmup:
    """The rise before a schedule.

    Args:
        steps: its length: a whole number of steps, or a fraction, the share of the training.
        kind: its form.
        start: the factor of the first step; None is 1 / (steps + 1).
        curve: for "custom", the form itself: [0, 0.1, 1] rises to a tenth in the first half.

    Raises:
        InputError: a custom form without a curve or the other way round, or an exponential that starts at 0.
    """

    steps: int | float = 0
    kind: Kind = "linear"
    start: float | None = None
    curve: Curve | None = None

    def __post_init__(self) -> None:
        if (self.kind == "custom") != (self.curve is not None):
            problem = "custom needs warmup_curve." if self.kind == "custom" else "only custom has a warmup_curve."
            hint = "Give both, such as warmup_type=custom warmup_curve=[0,0.1,1]."
            raise InputError(problem, key="warmup_type", value=self.kind, hint=hint)
        if self.curve is not None and self.start is not None:
            problem = "a custom warmup starts where its curve does."
            raise InputError(problem, key="warmup_start", value=self.start, hint="Leave it out.")
        if isinstance(self.curve, Sequence) and len(self.curve) < 2:
            problem = "needs at least the factors of its two ends."
            raise InputError(problem, key="warmup_curve", value=list(self.curve))
        if self.kind == "exponential" and self.start == 0:
            problem = "an exponential cannot rise from 0."
            raise InputError(problem, key="warmup_start", value=self.start, hint="Start at 0.01, or leave it out.")

    def length(self, total: int) -> int:
        """Its steps in a training of `total`.

        Raises:
            InputError: it leaves the schedule no step.
        """
        steps = in_steps(self.steps, total)
        if not 0 <= steps < total:
            share = f" ({steps} steps)" if isinstance(self.steps, float) else ""
            problem = f"must be at least 0 and below total_steps={total}{share}."
            hint = "Warm up for fewer steps or train for more."
            raise InputError(problem, key="warmup_steps", value=self.steps, hint=hint)
        return steps

    def factor(self, step: int, steps: int) -> float:
        """The factor after `step` of `steps` steps of warmup, 0 <= step < steps."""
        done = step / steps
        if self.curve is not None:
            return self.curve(done) if callable(self.curve) else _interpolate(self.curve, done)
        start = 1 / (steps + 1) if self.start is None else self.start
        if self.kind == "exponential":
            return float(start ** (1 - done))
        if self.kind == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return start + (1 - start) * done


def warmed_up(shape: Shape, warmup: Warmup) -> Shape:
    """`shape` after a warmup: a schedule over both."""

    def both(step: int, total: int, /) -> Factors:
        steps = warmup.length(total)
        if step >= steps:
            return shape(step - steps, total - steps)
        first = shape(0, total - steps)
        return Factors(warmup.factor(step, steps) * first.lr, first.momentum, "warmup")

    return both


def _interpolate(values: Sequence[float], share: float) -> float:
    """The value at a share of the way through `values`, which stand in even distances."""
    place = share * (len(values) - 1)
    left = min(int(place), len(values) - 2)
    return values[left] + (values[left + 1] - values[left]) * (place - left)

"""What a schedule is, and what it says about one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from ava.optimization.learning_rate.change import Change

Phase = Literal["warmup", "main", "cooldown"]
"""Where a step lies: in the rise to the schedule's own rates, among them, or in a last decay of its own."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A schedule's word for one step.

    Attributes:
        lr: multiplies every group's base learning rate, so that ratios between groups are kept.
        momentum: the momentum (or first beta) itself; None leaves it alone.
        phase: where the step lies.
    """

    lr: float
    momentum: float | None = None
    phase: Phase = "main"


class Shape(Protocol):
    """A schedule with its options bound: a pure function of the step, such as `partial(cosine, floor=0.1)`."""

    def __call__(self, step: int, total: int, /) -> Factors:
        """The factors of the step after `step` steps, 0 <= step <= total, of a training of `total`."""
        ...


@runtime_checkable
class Driven(Shape, Protocol):
    """A schedule that a measured value drives; between two values it is a function of the step like the others."""

    def observe(self, step: int, value: float) -> Change | None:
        """Take a value, of which less is better, measured after `step` steps; say what it changes, if anything."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, as plain values."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Go on from there."""
        ...

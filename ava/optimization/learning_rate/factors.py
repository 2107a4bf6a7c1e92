"""What a schedule says about one step."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Factors:
    """A schedule's word for one step.

    Attributes:
        lr: multiplies every group's base learning rate, so that ratios between groups are kept.
        momentum: the momentum (or first beta) itself; None leaves it alone.
    """

    lr: float
    momentum: float | None = None

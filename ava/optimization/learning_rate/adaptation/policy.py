"""What is done about a plateau, and about steady improvement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnPlateau = Literal["reduce", "restart", "warn"]


@dataclass(frozen=True)
class Policy:
    """The options of an adaptation; rates are multiples of the one it begins with.

    Attributes:
        patience: values without an improvement that make a plateau, where there is no noise; at least so many in noise.
        threshold: what an improvement has to exceed.
        relative: whether that is a share of the best value.
        cooldown: values after a change that are not judged.
        reduction_factor: multiplies the rate on a plateau, in (0, 1).
        increase_factor: multiplies it on steady improvement; 1 leaves it alone.
        min_factor: the lowest rate.
        max_factor: the highest rate.
        on_plateau: lower the rate; or restart warm; or say so and change nothing.
        restart_steps: length of a restart's cycle in steps.
        peak_factor: the first restart's peak over the rate.
        peak_decay: multiplies the peak from restart to restart; a plateau at which it would no longer stand above the
            rate lowers that instead.
    """

    patience: int
    threshold: float
    relative: bool
    cooldown: int
    reduction_factor: float
    increase_factor: float
    min_factor: float
    max_factor: float
    on_plateau: OnPlateau
    restart_steps: int
    peak_factor: float
    peak_decay: float

"""Reduce on plateau."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from ava.optimization.learning_rate.adaptation.adaptation import Adaptation
from ava.optimization.learning_rate.adaptation.driven import AdaptationShape
from ava.optimization.learning_rate.adaptation.policy import Policy
from ava.registry import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, scheduler


@scheduler(metric="eval")
class Plateau(AdaptationShape):
    """Lower the rate when the evaluations' metric stops improving; noise alone is not taken for a plateau.

    Where the metric shows no noise, it acts at the same evaluations as torch's ReduceLROnPlateau with the same
    options; only a curve that falls at its pace by less than the threshold is left alone. That there is no noise has
    to be seen: in 16 steps with one turn at most, in a straight line, or in values that repeat.

    Args:
        factor: multiplies the rate on a plateau.
        patience: evaluations without an improvement that are let pass; the next one makes a plateau. In noise, at
            least so many.
        threshold: what an improvement on the best metric has to exceed.
        threshold_mode: whether that is a share of the best metric, or a difference.
        cooldown: evaluations after a change that are not judged.
        min_factor: the lowest rate, as a multiple of the optimizer's.
        on_plateau: lower the rate; or restart warm; or say so and change nothing.
        restart_steps: length of a restart's cycle in optimizer steps.
        peak_factor: the first restart's peak over the rate.
        peak_decay: multiplies the peak from restart to restart; when it no longer stands above the rate, a plateau
            lowers that.
    """

    def __init__(
        self,
        /,
        factor: Annotated[float, Gt(0), Lt(1)] = 0.1,
        patience: NonNegativeInt = 10,
        threshold: NonNegativeFloat = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: NonNegativeInt = 0,
        min_factor: Fraction = 0.0,
        on_plateau: Literal["reduce", "restart", "warn"] = "reduce",
        restart_steps: PositiveInt = 1000,
        peak_factor: Annotated[float, Ge(1)] = 4.0,
        peak_decay: Annotated[float, Gt(0), Le(1)] = 0.7,
    ) -> None:
        self.adaptation = Adaptation(
            Policy(
                patience=patience + 1,
                threshold=threshold,
                relative=threshold_mode == "rel",
                cooldown=cooldown,
                reduction_factor=factor,
                increase_factor=1.0,
                min_factor=min_factor,
                max_factor=float("inf"),
                on_plateau=on_plateau,
                restart_steps=restart_steps,
                peak_factor=peak_factor,
                peak_decay=peak_decay,
            )
        )

"""A rate that follows the training loss."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from ava.optimization.learning_rate.adaptation.adaptation import Adaptation
from ava.optimization.learning_rate.adaptation.driven import AdaptationShape
from ava.optimization.learning_rate.adaptation.policy import Policy
from ava.registry import Fraction, NonNegativeInt, PositiveInt, scheduler


@scheduler(metric="loss")
class Adaptive(AdaptationShape):
    """Raise the rate while the training loss falls steadily, lower it on a plateau; noise is taken for neither.

    Args:
        patience: steps without (or with) an improvement before a change, where there is no noise; in noise, at least
            so many, and as many more as the noise requires.
        cooldown: steps after a change that are not judged.
        reduction_factor: multiplies the rate on a plateau.
        increase_factor: multiplies it on steady improvement; 1 never raises it.
        loss_threshold: what an improvement has to exceed, as a share of the best loss.
        min_factor: the lowest rate, as a multiple of the optimizer's.
        max_factor: the highest rate, as a multiple of the optimizer's.
        on_plateau: lower the rate; or restart warm; or say so and change nothing.
        restart_steps: length of a restart's cycle in steps.
        peak_factor: the first restart's peak over the rate.
        peak_decay: multiplies the peak from restart to restart; when it no longer stands above the rate, a plateau
            lowers that.
    """

    def __init__(
        self,
        /,
        patience: PositiveInt = 10,
        cooldown: NonNegativeInt = 5,
        reduction_factor: Annotated[float, Gt(0), Lt(1)] = 0.5,
        increase_factor: Annotated[float, Ge(1)] = 1.2,
        loss_threshold: Annotated[float, Ge(0), Lt(1)] = 0.001,
        min_factor: Fraction = 0.001,
        max_factor: Annotated[float, Ge(1)] = 10.0,
        on_plateau: Literal["reduce", "restart", "warn"] = "reduce",
        restart_steps: PositiveInt = 200,
        peak_factor: Annotated[float, Ge(1)] = 4.0,
        peak_decay: Annotated[float, Gt(0), Le(1)] = 0.7,
    ) -> None:
        self.adaptation = Adaptation(
            Policy(
                patience=patience,
                threshold=loss_threshold,
                relative=True,
                cooldown=cooldown,
                reduction_factor=reduction_factor,
                increase_factor=increase_factor,
                min_factor=min_factor,
                max_factor=max_factor,
                on_plateau=on_plateau,
                restart_steps=restart_steps,
                peak_factor=peak_factor,
                peak_decay=peak_decay,
            )
        )

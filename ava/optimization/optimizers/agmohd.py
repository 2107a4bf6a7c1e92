"""AGMOHD: AdamW that turns itself down while training is hindered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from annotated_types import Gt, Le

from ava import registry
from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.hindered import (
    hindered_moments,
    hindered_moments_ahead,
    limit_update,
    note_update_norm,
    square_update,
    turn_gradient_down,
    turn_rate_down,
)
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, Name, NonNegativeFloat, PositiveFloat, PositiveInt, optimizer


@optimizer(
    title="AGMOHD",
    pilot="ava.optimization.stability.pilot:Pilot",
    silent=("detectors", "responses"),
    live={"gradient_factor": 1.0, "momentum_factor": 1.0, "rate_factor": 1.0},
)
def agmohd(
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.999),
    eps: NonNegativeFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
    hindrance_threshold: Annotated[float, Gt(0), Le(1)] = 0.1,
    momentum_schedule: Name = "adaptive",
    gradient_clipping: Literal["adaptive", "global_norm", "none"] = "adaptive",
    lr_scheduler: Literal["none", "cyclical", "cosine", "step"] = "none",
    use_rtx_optimizations: bool = False,
    clip_norm: PositiveFloat = 1.0,
    momentum_floor: Decay = 0.5,
    update_limit: PositiveFloat = 8.0,
    schedule_steps: PositiveInt = 1000,
    detectors: tuple[Name, ...] | dict[str, Any] | None = None,
    responses: tuple[Name, ...] | dict[str, Any] | None = None,
) -> Words:
    """AGMOHD: AdamW with less momentum, gradient and rate while training is hindered.

        g <- f_g g;  b = max(f_m b1, floor);  m <- b m + (1 - b) g;  v <- b2 v + (1 - b2) g^2
        u = clamp((m / (1 - prod b)) / (sqrt(v / (1 - b2^t)) + eps), -limit, limit)
        p <- (1 - f_r lr wd) p - f_r lr u

    The factors follow from what is seen in the norm of the gradients, the norm of the updates and, where `observe` or
    a closure tells it, the loss. While nothing is wrong they are 1, and the update is AdamW's. A gradient that is not
    finite changes nothing. Nothing is read back from an accelerator.

    Args:
        lr: learning rate.
        betas: decay of the mean and of the mean square of the gradient.
        eps: keeps the division from zero, outside the root.
        weight_decay: decay per unit of learning rate.
        hindrance_threshold: how far off its usual course training may be before it counts as hindered; less is more
            sensitive.
        momentum_schedule: what becomes of momentum: adaptive (falls with hindrance), fixed, nesterov (falls with it,
            and looks one step ahead), or a plugin's.
        gradient_clipping: adaptive (to the expected norm and 3 deviations), global_norm (to `clip_norm`) or none.
        lr_scheduler: how the rate moves where no scheduler moves it: none, cyclical, cosine (with restarts) or step;
            `get_agmohd_schedule` makes a scheduler of the same.
        use_rtx_optimizations: turn on TF32 and cuDNN's choice by trial, for the whole process.
        clip_norm: greatest norm of all gradients together, of global_norm.
        momentum_floor: what the first of `betas` never falls below, unless it is given lower.
        update_limit: greatest length of an update in each coordinate, before the rate; with the default betas Adam's
            own is 7.3, so it holds only while momentum is turned down.
        schedule_steps: steps of a cycle, or between two drops, of `lr_scheduler`.
        detectors: what is looked for, names or name: options; null is everything there is.
        responses: what else is done when something is found, names or name: options; null is shrink and skip, [] is
            nothing.

    Reference: docs/stability/agmohd.md; of the update: Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101
    """
    looks_ahead = registry.momentum_schedule[momentum_schedule].tags.get("looks_ahead", False)
    return (
        turn_gradient_down, hindered_moments_ahead if looks_ahead else hindered_moments, divide, limit_update,
        turn_rate_down, square_update, note_update_norm, weight_decay and decoupled_decay, descend,
    )  # fmt: skip

"""AGMOHD's option `lr_scheduler` as one of torch's schedulers, for those who want to call `step()` themselves.

    optimizer = AGMOHD(model.parameters(), lr_scheduler="cosine")
    scheduler = get_agmohd_schedule(optimizer, num_training_steps=10_000)
    ...
    optimizer.step()
    scheduler.step()

An optimizer applies the option in its own steps until such a scheduler is made; from then on the scheduler does it
alone. What slows the rate down while training is hindered (the response `slow`) multiplies in either case.
"""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from torch.optim.lr_scheduler import LambdaLR

from ava.errors import InputError
from ava.optimization.options import check
from ava.optimization.stability.pilot import Pilot
from ava.optimization.stability.rate import factor_of
from ava.registry import NonNegativeInt, PositiveInt


class RateFactor:
    """The factor on every group's rate after some steps; its attributes are in the scheduler's state dict.

    Args:
        scheduler: none, cyclical, cosine or step.
        length: of a cycle, or between two drops.
        total: length of the training in steps behind the warmup; None is not known.
        warmup: steps of a straight rise from 0.
    """

    def __init__(self, scheduler: str, length: int, total: int | None, warmup: int) -> None:
        self.scheduler, self.length, self.total, self.warmup = scheduler, length, total, warmup

    def __call__(self, step: int) -> float:
        """The factor after so many steps."""
        if step < self.warmup:
            return step / self.warmup
        return factor_of(self.scheduler, step - self.warmup, self.length, self.total)


def get_agmohd_schedule(
    optimizer: torch.optim.Optimizer, num_training_steps: int | None = None, num_warmup_steps: int = 0,
    last_epoch: int = -1,
) -> LambdaLR:  # fmt: skip
    """A scheduler that moves the rates as the optimizer's option `lr_scheduler` says; `none` keeps them.

        none       1
        cyclical   up from 1/4 to 1 and down again, every `schedule_steps` steps
        cosine     from 1 to 0 within the training; if its length is not known, within `schedule_steps`, then anew
        step       times 1/10 after every 30 % of the training; if its length is not known, every `schedule_steps`

    Args:
        optimizer: an AGMOHD, or what accelerate has wrapped around one.
        num_training_steps: length of the training in optimizer steps; None is not known.
        num_warmup_steps: steps of a straight rise from 0 to the rate, before the schedule begins.
        last_epoch: steps already taken less 1, as torch counts; groups then need the `initial_lr` of those.

    Returns:
        A torch.optim.lr_scheduler.LambdaLR; call its `step()` after each of the optimizer's.

    Raises:
        InputError: the optimizer is another one, or a number is not allowed.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)
    pilot = getattr(optimizer, "pilot", None)
    if not isinstance(pilot, Pilot):
        raise InputError(
            "must be an AGMOHD.", key="optimizer", value=type(optimizer).__name__,
            hint="For others there are torch's schedulers, and `ava.optimization.SchedulerFactory`.",
        )  # fmt: skip
    warmup = int(check("num_warmup_steps", num_warmup_steps, NonNegativeInt))
    total = None if num_training_steps is None else int(check("num_training_steps", num_training_steps, PositiveInt))
    if total is not None and warmup >= total:
        raise InputError(f"must be below num_training_steps, {total}.", key="num_warmup_steps", value=warmup)
    options = pilot.options
    if total is not None and not warmup and options["lr_scheduler"] == "none":
        raise InputError(
            "is the length of lr_scheduler, which is none.", key="num_training_steps", value=total,
            hint="Build the optimizer with lr_scheduler=cosine or step, or leave the length out.",
        )  # fmt: skip
    _check_last_epoch(last_epoch, optimizer)
    rest = None if total is None else total - warmup
    factor = RateFactor(options["lr_scheduler"], options["schedule_steps"], rest, warmup)
    scheduler = LambdaLR(optimizer, factor, last_epoch=last_epoch)
    pilot.follows_a_schedule = True
    return scheduler


def _check_last_epoch(last_epoch: int, optimizer: torch.optim.Optimizer) -> None:
    check("last_epoch", last_epoch, Annotated[int, Ge(-1)])
    if last_epoch != -1 and any("initial_lr" not in group for group in optimizer.param_groups):
        raise InputError(
            "goes on from a schedule, but the optimizer has not followed one.", key="last_epoch", value=last_epoch,
            hint="Leave it out, and load the scheduler's state dict; or load the optimizer's first.",
        )  # fmt: skip

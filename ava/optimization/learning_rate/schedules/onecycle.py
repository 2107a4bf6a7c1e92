"""The 1cycle policy."""

from __future__ import annotations

import math
from typing import Literal

from ava.optimization.learning_rate.factors import Factors
from ava.registry import Decay, Fraction, PositiveFloat, scheduler


@scheduler
def onecycle(
    step: int,
    total: int,
    /,
    pct_start: Fraction = 0.3,
    div_factor: PositiveFloat = 25.0,
    final_div_factor: PositiveFloat = 1e4,
    anneal: Literal["cosine", "linear"] = "cosine",
    cycle_momentum: bool = True,
    base_momentum: Decay = 0.85,
    max_momentum: Decay = 0.95,
) -> Factors:
    """1cycle: up to the given rate and far down again, momentum the other way; fast on short trainings.

    The group's rate is the peak. The first step uses peak / div_factor, the last one peak / final_div_factor.
    torch's OneCycleLR divides the *initial* rate by its final_div_factor; it draws the same curve when it is given
    final_div_factor / div_factor. The peak is passed at step pct_start * total - 1.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        pct_start: share of the steps on the way up.
        div_factor: the peak over the first rate.
        final_div_factor: the peak over the last rate.
        anneal: the shape of both ways.
        cycle_momentum: whether momentum (the first of `betas`) moves too, where there is one.
        base_momentum: momentum at the peak.
        max_momentum: momentum at both ends.

    Returns:
        The multiplier on every group's peak rate, and the momentum; the phase is "warmup" on the way up.

    Reference: Smith & Topin 2018, https://arxiv.org/abs/1708.07120
    """
    turn, end = pct_start * total - 1, total - 1
    step = min(step, end)
    if step <= turn:
        progress, lrs, momenta = _share(step, 0, turn), (1 / div_factor, 1.0), (max_momentum, base_momentum)
    else:
        progress, lrs, momenta = _share(step, turn, end), (1.0, 1 / final_div_factor), (base_momentum, max_momentum)
    if anneal == "cosine":
        progress = (1 - math.cos(math.pi * progress)) / 2
    momentum = _between(*momenta, progress) if cycle_momentum else None
    return Factors(_between(*lrs, progress), momentum, "warmup" if step < turn else "main")


def _share(step: float, start: float, end: float) -> float:
    """How much of the way from `start` to `end` is done; all of it where there is no way."""
    return (step - start) / (end - start) if end > start else 1.0


def _between(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress

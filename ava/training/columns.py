"""What a line of the log says of all the steps since the last line, where the last step alone would mislead.

A spike between two lines is as real as one on a line: a mean, a median and the extremes tell of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ava.optimization.learning_rate.adaptation.noise import UNKNOWN
from ava.optimization.learning_rate.adaptation.trend import fit
from ava.optimization.stability.verdict import Number

if TYPE_CHECKING:
    from ava.training.state import Run

SHORTEST, LONGEST = 16, 512
"""Losses through which a trend is drawn: at least so many where there are so many, and at most."""
_STEPS = 100


def loss_trend(losses: Sequence[float], window: int) -> dict[str, float]:
    """The slope of the loss per 100 steps, as `loss_trend`: of a straight line through the last steps.

    Args:
        losses: of the last steps, the newest last.
        window: steps since the last line; where they are few, steps before them are looked at too.

    Returns:
        Nothing where fewer than six losses, or losses that are not finite, show no trend.
    """
    values = list(losses)[-min(max(window, SHORTEST), LONGEST) :]
    if len(values) < 6 or not all(map(math.isfinite, values)):
        return {}
    return {"loss_trend": _STEPS * fit(values, UNKNOWN).slope}


def of_steps(losses: Sequence[float], norms: Sequence[float], num_skipped: int) -> dict[str, float]:
    """Extremes and averages over the steps since the last line; nothing where it was one step.

    Args:
        losses: of each step.
        norms: of each step's gradient.
        num_skipped: how many of them changed nothing.

    Returns:
        `loss_mean`, `loss_max`, `grad_norm_median`, `grad_norm_max`; `skipped`, the share of steps that were left out,
        where there are some.
    """
    row = {} if num_skipped == 0 else {"skipped": num_skipped / len(losses)}
    if len(losses) < 2:
        return row
    return row | {
        "loss_mean": math.fsum(losses) / len(losses) if all(map(math.isfinite, losses)) else math.nan,
        "loss_max": _largest(losses), "grad_norm_median": _median(norms), "grad_norm_max": _largest(norms),
    }  # fmt: skip


def of_verdicts(verdicts: Sequence[dict[str, float]]) -> dict[str, float]:
    """What the step with the most hindrance since the last line was judged; what is expected is the last step's."""
    known = [one for one in verdicts if "hindrance" in one]
    if not known:
        return {}
    worst = max(known, key=lambda one: one["hindrance"] if one["hindrance"] == one["hindrance"] else math.inf)
    columns = {name: value for name, value in worst.items() if name.startswith("hindrance")}
    later = {name: known[-1].get(name, math.nan) for name in ("expected_norm", "expected_loss")}
    return columns | {name: value for name, value in later.items() if not math.isnan(value)}


def moving(run: Run) -> dict[str, Number]:
    """What each step sets anew and no report holds, as it stands after the last one; on an accelerator not yet read.

    Returns:
        `update_norm`, the length of the last update: before recovery shrank it, or else, of an optimizer that measures
        its own, without the rate; `momentum_factor`, of an optimizer that moves its momentum.
    """
    group: dict[str, Any] = run.optimizer.param_groups[0]
    found: dict[str, Number] = {name: group[name] for name in ("update_norm", "momentum_factor") if name in group}
    if run.guard is not None and run.guard.mending is not None:
        found["update_norm"] = run.guard.mending.update
    return found


def momentum(optimizer: torch.optim.Optimizer, factor: float = 1.0) -> dict[str, float]:
    """The weight of the past in the first group's average of gradients; of an optimizer that moves it, this step's.

    Args:
        optimizer: whose.
        factor: `momentum_factor` of `moving`.
    """
    group: dict[str, Any] = optimizer.param_groups[0]
    value = group["betas"][0] if "betas" in group else group.get("momentum")
    if value is None:
        return {}
    floor = min(group.get("momentum_floor", 0.0), value)
    return {"momentum": max(min(factor, 1.0) * float(value), float(floor))}


def _median(values: Sequence[float]) -> float:
    """Of those that are finite; NaN if none is."""
    return statistics.median_low([value for value in values if math.isfinite(value)] or [math.nan])


def _largest(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)

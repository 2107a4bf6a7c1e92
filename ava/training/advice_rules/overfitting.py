"""The model learns the training data by heart."""

from __future__ import annotations

import math

from ava.registry import Fraction, PositiveInt, advice
from ava.training.history import Advice, History, loss, mean

_SEVERAL = 3
"""Evaluations whose mean is compared: one alone may be luck."""


@advice
def overfitting(history: History, /, rise: Fraction = 0.2, evaluations: PositiveInt = 5) -> Advice | None:
    """The loss on the validation data rises while that on the training data falls.

    Args:
        history: the run so far.
        rise: of the last evaluations over the best ones, as a share of these.
        evaluations: since the best one, at least.
    """
    seen = [row for row in history.evaluations if math.isfinite(row.get("eval/loss", math.nan))]
    if len(seen) <= evaluations + _SEVERAL:
        return None
    best = min(range(len(seen)), key=lambda i: seen[i]["eval/loss"])
    if len(seen) - 1 - best < evaluations:
        return None
    level = mean(sorted(row["eval/loss"] for row in seen)[:_SEVERAL])
    now, step = mean([row["eval/loss"] for row in seen[-_SEVERAL:]]), int(seen[best]["step"])
    then = [loss(row) for row in history.lines if row["step"] <= step]
    if now <= level + rise * abs(level) or not then or loss(history.lines[-1]) >= then[-1]:
        return None
    text = (
        f"the model overfits since step {step} (eval/loss {level:.3g} then, {now:.3g} now, while the training loss "
        f"fell): try trainer.max_steps={step}, trainer.early_stop_patience={evaluations}, more optimizer.weight_decay "
        f"or more data"
    )
    return Advice(text, {"since": step, "best": level, "now": now})

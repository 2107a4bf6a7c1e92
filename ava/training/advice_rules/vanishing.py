"""Gradients have vanished although there is much left to learn."""

from __future__ import annotations

import math

from ava.registry import PositiveFloat, PositiveInt, advice
from ava.training.history import Advice, History, norm


@advice
def vanishing(history: History, /, share: PositiveFloat = 1e-3, lines: PositiveInt = 3) -> Advice | None:
    """The gradient is a thousandth of what it was, and the loss is not.

    Args:
        history: the run so far.
        share: of the early norm below which a gradient has vanished.
        lines: one after another for which that holds.
    """
    rows, limit = list(history.lines)[-lines:], share * history.early_norm
    if history.num_lines <= lines or history.is_converged or not math.isfinite(limit):
        return None
    if not all(norm(row) < limit for row in rows):
        return None
    since, now = int(rows[0]["step"]), norm(rows[-1])
    where = _smallest(history)
    text = (
        f"gradients have vanished since step {since} (norm {now:.1g}, {history.early_norm:.1g} at first{where}): try a "
        f"lower optimizer.lr, normalisation layers or another initialisation"
    )
    return Advice(text, {"since": since, "norm": now, "early_norm": history.early_norm})


def _smallest(history: History) -> str:
    norms = history.layers[-1].norms if history.layers else {}
    return f"; smallest in {min(norms, key=lambda name: norms[name])}" if len(norms) > 1 else ""

"""Nearly every gradient is clipped: the threshold, not the gradient, sets the length of the steps."""

from __future__ import annotations

import statistics

from ava.registry import PositiveFloat, PositiveInt, advice
from ava.training.history import Advice, History, norm, rounded


@advice
def clipped_always(
    history: History, /, ratio: PositiveFloat = 3.0, lines: PositiveInt = 5, steps: PositiveInt = 200
) -> Advice | None:
    """In line after line the usual gradient is far above the norm to which it is clipped.

    Args:
        history: the run so far.
        ratio: of the median norm over the threshold that is far above.
        lines: that have to show it, at least.
        steps: for which it has to hold.
    """
    bound = history.setting.clip_norm
    rows = [row for row in history.lines if row["step"] > history.step - steps]
    if bound is None or len(rows) < lines or history.step < steps:
        return None
    norms = [norm(row) for row in rows]
    if not min(norms) > ratio * bound or not max(norms) < float("inf"):
        return None
    median, since = statistics.median(norms), int(rows[0]["step"])
    text = (
        f"gradients are clipped in most steps since step {since} (to {bound:g}; their median norm is {median:.3g}): "
        f"try trainer.clip_norm={rounded(median)}, and a lower optimizer.lr with it where steps grow"
    )
    return Advice(text, {"since": since, "median": median, "clip_norm": bound})

"""The learning rate is too low: hardly anything has been learned, and the weights hardly move.

How far they move is measured, so that it holds for every optimizer: a good rate moves them by a thousandth to a
hundredth of their size a step at first. A model that was trained before is meant to move less, and is given more leave.
"""

from __future__ import annotations

from ava.registry import Fraction, PositiveFloat, PositiveInt, advice
from ava.training.history import Advice, History, loss, rounded

_UNTRAINED = 0.85
"""Of the loss of guessing: a first loss below it is that of a model that knows something."""


@advice
def rate_too_low(
    history: History, /, steps: PositiveInt = 100, learned: Fraction = 0.05, change: PositiveFloat = 5e-4,
    change_trained: PositiveFloat = 2e-5,
) -> Advice | None:  # fmt: skip
    """After so many steps the loss has hardly fallen, and the weights hardly move: the rate is too low.

    Args:
        history: the run so far.
        steps: at the full rate, before which nothing is said; half of a short training is enough, or a third of these.
        learned: the share of the first loss that is gone by then at better rates.
        change: of the weights in a step, over their norm, below which they hardly move.
        change_trained: the same for a model that was trained before.
    """
    row, chance = history.lines[-1], history.setting.chance_loss
    moved = row.get("weight_change")
    needed = min(steps, max(history.setting.total_steps // 2, steps // 3))
    if moved is None or history.is_rising or history.has_decayed or history.setting.lr is None or not history.has_ratio:
        return None
    if history.step - history.peak_lr[1] + history.first_step < needed:
        return None
    is_new = chance is not None and history.first_loss > _UNTRAINED * chance
    gone = 1 - loss(row) / history.first_loss
    if not (-learned < gone < learned) or not 0 < moved < (change if is_new else change_trained):
        return None
    factor = 100.0 if moved < 1e-5 else 30.0 if moved < 1e-4 else 10.0
    higher = history.setting.lr * factor
    text = (
        f"the rate is too low: {gone:.1%} of the loss is gone after {history.step} steps, and a step moves the weights "
        f"by {moved:.1g} of their size: try optimizer.lr={rounded(higher)}"
    )
    return Advice(text, {"factor": factor, "lr": higher, "weight_change": moved, "gone": gone})

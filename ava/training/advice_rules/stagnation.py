"""The loss has stopped falling although the rate has not come down."""

from __future__ import annotations

import math

from ava.optimization.learning_rate.adaptation.judge import Judge
from ava.registry import Fraction, PositiveInt, advice
from ava.training.history import Advice, History, loss, rounded


@advice
class Stagnation:
    """A plateau, as the `plateau` schedule would see it.

    Args:
        patience: lines without an improvement, at least.
        threshold: what an improvement has to exceed, as a share of the best.
    """

    def __init__(self, /, patience: PositiveInt = 10, threshold: Fraction = 1e-3) -> None:
        self._judge = Judge(patience, threshold, relative=True)
        self._seen, self._since = 0, 0

    def __call__(self, history: History) -> Advice | None:
        """Look at the last line.

        Args:
            history: the run so far; called once a line.
        """
        value = loss(history.lines[-1])
        is_judged = math.isfinite(value) and not history.is_rising
        if not is_judged or self._judge.observe(value) != "plateau":
            return None
        self._judge.restart("plateau")
        since, self._since = self._since, history.step
        if history.has_decayed or history.is_converged or value > history.first_loss:
            return None
        text = f"the loss has stopped falling (at {self._judge.smoothed:.3g}, seen since step {since}): try "
        rate = history.setting.lr
        lower = "" if rate is None else f"optimizer.lr={rounded(rate / 3)} or "
        return Advice(
            text + lower + "scheduler=plateau, which lowers the rate here",
            {"since": since, "loss": self._judge.smoothed},
        )

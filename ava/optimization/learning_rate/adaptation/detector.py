"""Says when a metric has stopped improving."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor

from ava.errors import InputError
from ava.optimization.learning_rate.adaptation.judge import Judge
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, PositiveInt


class PlateauDetector:
    """Finds plateaus; noise alone is not taken for one.

    It fires once when a plateau is found, and then starts afresh: while the plateau lasts it fires again after
    `patience` further values (in noise, when as much is known again), so that a loop that halves its rate each
    time goes on halving it. The best value is kept.

    Args:
        patience: values without an improvement that make a plateau, where there is no noise; at least so many in noise.
        min_delta: what an improvement on the best value has to exceed.
        mode: whether less is better ("min", a loss) or more ("max", an accuracy).

    Attributes:
        num_ignored: values that were not finite; they measure nothing, and are left out.

    Raises:
        InputError: an option is not allowed.
    """

    def __init__(self, patience: int = 10, min_delta: float = 0.001, mode: Literal["min", "max"] = "min") -> None:
        self._sign = -1.0 if check("mode", mode, Literal["min", "max"]) == "max" else 1.0
        delta = check("min_delta", min_delta, NonNegativeFloat)
        self._judge = Judge(check("patience", patience, PositiveInt), delta, relative=False)
        self.num_ignored = 0

    def step(self, metric: float | Tensor) -> bool:
        """Take in the next value; a tensor has one element.

        Returns:
            Whether a plateau is found with this value.
        """
        value = self._sign * float(metric)
        if not math.isfinite(value):
            self.num_ignored += 1
            return False
        if self._judge.observe(value) != "plateau":
            return False
        self._judge.restart("plateau")
        return True

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        return {"num_ignored": self.num_ignored, "judge": self._judge.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from them, exactly.

        Raises:
            InputError: they are not a detector's.
        """
        if "judge" not in state_dict:
            raise InputError("the state is not a PlateauDetector's.", hint="Load what its state_dict() gave.")
        self.num_ignored = state_dict["num_ignored"]
        self._judge.load_state_dict(state_dict["judge"])

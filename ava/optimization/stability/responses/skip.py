"""No step on a batch whose loss is out of line."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import where
from ava.optimization.stability.acts import Act
from ava.optimization.stability.verdict import Number, Verdict
from ava.registry import PositiveInt, response


@response
class Skip:
    """Steps whose loss is far out of line are left out, so many in a row at most: then it is not the batches.

    A gradient that is not finite is left out in any case.

    Args:
        limit: steps in a row; where the weights are what is wrong, training has to go on to get away from there.
    """

    def __init__(self, /, limit: PositiveInt = 10) -> None:
        self.limit = limit
        self.memory: dict[str, Number] = {"in_a_row": 0.0}

    def __call__(self, verdict: Verdict, update_factor: Number, /) -> Act:
        """What is to be done in this step.

        Args:
            verdict: on this step.
            update_factor: what would bring the last update back among the others.
        """
        count = self.memory["in_a_row"]
        self.memory["in_a_row"] = where(verdict.skip > 0, count + 1.0, 0.0)
        return Act(skip=where(count < self.limit, verdict.skip, 0.0))

"""The gradient of each objective with respect to the parameters, by one backward pass each.

Each pass goes through the objective's own head and what lies below it, and is an ordinary one: it accumulates into
`.grad`, which is taken away after it and laid back before the same objective's next pass. So micro-batches add up where
they always do, and hooks that gather and scatter sharded parameters work as ever. What an objective does not reach gets
no gradient, which tells heads from shared parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.alignment import Aligned, align
from ava.optimization.gradients.surgery.ranks import Ranks

Row = list[Tensor | None]


class ParameterRows:
    """Collects the T rows of a step over its micro-batches.

    Args:
        parameters: N, all that are trained; `.grad` of each is None between the passes.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self.rows: list[Row] = []

    def backward(self, losses: Sequence[Tensor], seeds: Sequence[Tensor]) -> None:
        """Add one micro-batch.

        Args:
            losses: T, of one graph.
            seeds: what each is multiplied with.
        """
        rows, self.rows = self.rows, []
        for index, (loss, seed) in enumerate(zip(losses, seeds, strict=True)):
            if rows:
                for parameter, gradient in zip(self._parameters, rows[index], strict=True):
                    parameter.grad = gradient
                rows[index] = []
            torch.autograd.backward(loss, seed, retain_graph=index < len(losses) - 1)
            self.rows.append(take(self._parameters))

    def align(self, ranks: Ranks) -> Aligned:
        """Hand the rows over side by side, averaged over all ranks, and forget them."""
        rows, self.rows = self.rows, []
        ranks.complete(rows, self._parameters)
        for row in rows:
            ranks.average_(row)
        return align(rows)


def take(parameters: Sequence[Tensor]) -> Row:
    """Their gradients, which they no longer have afterwards."""
    row = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, row, strict=True):
        if gradient is not None:
            parameter.grad = None
    return row

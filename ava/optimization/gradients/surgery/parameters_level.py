"""The gradient of each objective with respect to the parameters, by one backward pass each.

Each pass goes through the objective's own head and what lies below it, and is an ordinary one: it accumulates into
`.grad`, which is taken away after it and laid back before the same objective's next pass. So micro-batches add up where
they always do, and hooks that gather and scatter sharded parameters work as ever. What an objective does not reach gets
no gradient, which tells heads from shared parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.ranks import Ranks

Row = list[Tensor | None]


@dataclass(frozen=True)
class Parted:
    """T objectives' gradients of N parameters, the shared ones apart from those of heads.

    Attributes:
        shared: places of the parameters that at least two objectives reach.
        rows: T lists of their gradients, None where an objective does not reach one.
        heads: place -> (the one objective that reaches it, its gradient).
    """

    shared: list[int]
    rows: list[Row]
    heads: dict[int, tuple[int, Tensor]]


class ParameterRows:
    """Collects the T rows of a step over its micro-batches.

    Args:
        parameters: N, all that are trained; `.grad` of each is None between the passes.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._rows: list[Row] = []

    def backward(self, losses: Sequence[Tensor], seeds: Sequence[Tensor]) -> None:
        """Add one micro-batch.

        Args:
            losses: T, of one graph.
            seeds: what each is multiplied with.
        """
        rows, self._rows = self._rows, []
        for index, (loss, seed) in enumerate(zip(losses, seeds, strict=True)):
            if rows:
                for parameter, gradient in zip(self._parameters, rows[index], strict=True):
                    parameter.grad = gradient
                rows[index] = []
            torch.autograd.backward(loss, seed, retain_graph=index < len(losses) - 1)
            self._rows.append(take(self._parameters))

    def part(self, ranks: Ranks) -> Parted:
        """Hand the rows over, averaged over all ranks, and forget them."""
        rows, self._rows = self._rows, []
        ranks.complete(rows, self._parameters)
        shared: list[int] = []
        heads: dict[int, tuple[int, Tensor]] = {}
        for place, column in enumerate(zip(*rows, strict=True)):
            reaching = [(owner, gradient) for owner, gradient in enumerate(column) if gradient is not None]
            if len(reaching) == 1:
                heads[place] = reaching[0]
            elif reaching:
                shared.append(place)
        for row in rows:
            ranks.average_(row)
        return Parted(shared, [[row[place] for place in shared] for row in rows], heads)


def take(parameters: Sequence[Tensor]) -> Row:
    """Their gradients, which they no longer have afterwards."""
    row = [parameter.grad for parameter in parameters]
    for parameter, gradient in zip(parameters, row, strict=True):
        if gradient is not None:
            parameter.grad = None
    return row

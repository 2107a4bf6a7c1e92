"""The objectives of one step as a surgeon compares them: averaged over ranks, without the loss scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.gram import gram_matrix
from ava.optimization.gradients.surgery.ranks import Ranks
from ava.optimization.optimizers.engines.batch import wide_dtype

Row = list[Tensor | None]


@dataclass(frozen=True)
class Comparison:
    """T objectives at one step.

    Attributes:
        step: calls before this one.
        values: T losses, detached.
        shared: the parameters that are compared.
        ranks: who averages.
    """

    step: int
    values: list[Tensor]
    shared: list[Tensor]
    ranks: Ranks

    @property
    def losses(self) -> Tensor:
        """(T,) float64 on the CPU, averaged over ranks; waits for the device once."""
        wide = wide_dtype(self.values[0].device)
        found = torch.stack([value.to(wide) for value in self.values]).to("cpu", torch.float64)
        return self.ranks.total(found) / self.ranks.size

    def average(self, rows: list[Row], parameters: Sequence[Tensor]) -> list[Row]:
        """The rows averaged over all ranks, None where no rank reaches a parameter."""
        if self.ranks.sums is None:
            return rows
        # What autograd gives may be expanded, or the same tensor twice, and is averaged in place.
        owned = [[None if gradient is None else gradient.clone() for gradient in row] for row in rows]
        self.ranks.complete(owned, parameters)
        for row in owned:
            self.ranks.average_(row)
        return owned

    def gram(self, rows: list[Row], parameters: Sequence[Tensor], seed: Tensor) -> Tensor:
        """(T, T) float64 on the CPU, of the averaged gradients of the unscaled losses.

        Args:
            rows: T lists of gradients of the parameters.
            parameters: what they are of.
            seed: 0-dim, what the losses were multiplied with.
        """
        return gram_matrix(self.average(rows, parameters)) / float(seed) ** 2

"""What ranks of one run know apart, put together: gradients are averaged, and all ranks agree on which there are.

Only plain tensors are exchanged. A sharded gradient (DTensor) was averaged by whoever sharded it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Sums = Callable[[Tensor], Tensor]

_BUCKET = 2**24
"""Elements that travel together: enough to fill a connection, few beside the gradients themselves."""


@dataclass(frozen=True)
class Ranks:
    """The ranks that share a batch.

    Attributes:
        sums: adds a tensor up over them, on the CPU or a device; None of one rank.
        size: how many there are.
    """

    sums: Sums | None = None
    size: int = 1

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, which may be in place."""
        return tensor if self.sums is None else self.sums(tensor)

    def complete(self, rows: Sequence[list[Tensor | None]], parameters: Sequence[Tensor]) -> None:
        """Put zeros where another rank has a gradient and this one has none: its samples did not reach that far.

        Args:
            rows: lists of one gradient, or None, for each parameter; changed in place.
            parameters: what the gradients are of.
        """
        if self.sums is None:
            return
        reached = torch.tensor([[gradient is not None for gradient in row] for row in rows], dtype=torch.float64)
        for row, counts in zip(rows, self.sums(reached).tolist(), strict=True):
            for index, count in enumerate(counts):
                if count and row[index] is None:
                    row[index] = torch.zeros_like(parameters[index])

    @torch.no_grad()
    def average_(self, gradients: Iterable[Tensor | None]) -> None:
        """Average over all ranks, in place, in few and large messages."""
        if self.sums is None:
            return
        for bucket in _buckets(gradients):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket]).div_(self.size)
            parts = torch.split(self.sums(flat), [gradient.numel() for gradient in bucket])
            shaped = [part.view(gradient.shape) for part, gradient in zip(parts, bucket, strict=True)]
            torch._foreach_copy_(bucket, shaped)


def _buckets(gradients: Iterable[Tensor | None]) -> list[list[Tensor]]:
    """Plain tensors of one type and device together."""
    full: list[list[Tensor]] = []
    open_ones: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        if gradient is None or hasattr(gradient, "to_local"):
            continue
        bucket = open_ones.setdefault((gradient.dtype, gradient.device), [])
        bucket.append(gradient)
        if sum(part.numel() for part in bucket) >= _BUCKET:
            full.append(open_ones.pop((gradient.dtype, gradient.device)))
    return full + list(open_ones.values())

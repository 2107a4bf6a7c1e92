"""The squared length of many tensors at once, over all shards, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ava.optimization.gradients.health import shards
from ava.optimization.optimizers.engines.batch import local, wide_dtype


def sum_of_squares(owners: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """The sum of the squares of all elements, 0-dim, the same on every rank that holds a shard.

    In double precision, so that it is infinite only where an element is.

    Args:
        owners: parameters; those that are sharded (DTensor) say over which ranks to add up.
        tensors: one for each parameter, of its shape, or of its local shard's.
    """
    by_ranks: dict[tuple[shards.Ranks, torch.device], list[Tensor]] = {}
    for owner, tensor in zip(owners, tensors, strict=True):
        shard = local(tensor)
        square = torch.linalg.vector_norm(shard, dtype=wide_dtype(shard.device)) ** 2
        by_ranks.setdefault((shards.ranks(owner), shard.device), []).append(square)
    totals = [shards.total(torch.stack(squares).sum(), ranks) for (ranks, _), squares in by_ranks.items()]
    return torch.stack([total.to(totals[0].device, totals[0].dtype) for total in totals]).sum()

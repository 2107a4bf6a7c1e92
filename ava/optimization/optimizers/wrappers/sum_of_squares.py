"""The squared length of many tensors at once, over all shards, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import compute_dtype, local


def sum_of_squares(owners: Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """The sum of the squares of all elements, 0-dim, the same on every rank that holds a shard.

    Args:
        owners: parameters; those that are sharded (DTensor) say over which ranks to add up.
        tensors: one for each parameter, of its shape, or of its local shard's.
    """
    by_ranks: dict[Any, list[Tensor]] = {}
    for owner, tensor in zip(owners, tensors, strict=True):
        shard = local(tensor)
        square = torch.linalg.vector_norm(shard, dtype=compute_dtype(shard)) ** 2
        by_ranks.setdefault((_ranks(owner), shard.device), []).append(square)
    totals = [_reduced(torch.stack(squares).sum(), ranks) for (ranks, _), squares in by_ranks.items()]
    return torch.stack([total.to(totals[0].device, totals[0].dtype) for total in totals]).sum()


def _ranks(owner: Any) -> tuple[Any, ...]:
    """The groups of ranks among which the parameter is cut."""
    cuts = [index for index, placement in enumerate(getattr(owner, "placements", ())) if hasattr(placement, "dim")]
    return tuple((owner.device_mesh, index) for index in cuts)


def _reduced(total: Tensor, ranks: tuple[Any, ...]) -> Tensor:
    for mesh, index in ranks:
        torch.distributed.all_reduce(total, group=mesh.get_group(index))
    return total

"""Numbers that all ranks of a torch.distributed training agree on."""

from __future__ import annotations

import torch
from torch import distributed


def mean_over_ranks(value: float, device: torch.device) -> float:
    """The mean of every rank's value; the value itself where there is one rank.

    Args:
        value: this rank's.
        device: one that the backend can send from.
    """
    if not _is_shared():
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total) / distributed.get_world_size()


def least_over_ranks(value: int, device: torch.device) -> int:
    """The least of every rank's values."""
    if not _is_shared():
        return value
    least = torch.tensor(value, dtype=torch.int64, device=device)
    distributed.all_reduce(least, op=distributed.ReduceOp.MIN)
    return int(least)


def _is_shared() -> bool:
    return distributed.is_available() and distributed.is_initialized()

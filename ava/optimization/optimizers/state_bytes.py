"""What an optimizer's memory costs."""

from __future__ import annotations

import torch
from torch import Tensor


def state_bytes(optimizer: torch.optim.Optimizer) -> float:
    """Bytes of state per parameter element; 8 for dense AdamW in float32, 0 before the first step.

    Args:
        optimizer: any torch.optim.Optimizer.

    Returns:
        The bytes of all state tensors, counters of one element aside, over the elements of all parameters.
    """
    elements = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    values = [value for state in optimizer.state.values() for value in state.values()]
    held = [v.numel() * v.element_size() for v in values if isinstance(v, Tensor) and v.dim()]
    return float(sum(held) / max(1, elements))

"""Which parameters decay: matrices do, norms and biases do not."""

from __future__ import annotations

from typing import Any

from torch import nn


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups in which only tensors of two or more dimensions decay.

    Args:
        model: whose trainable parameters to group.
        weight_decay: the matrices' decay; 0 gives a single group.

    Returns:
        Groups of (name, parameter) pairs, as `torch.optim.Optimizer` takes them; no group is empty.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if weight_decay == 0:
        return [{"params": named}]
    matrices = [(name, p) for name, p in named if p.ndim >= 2]
    others = [(name, p) for name, p in named if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]

"""NaN in what a model computes with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ava.bench.faults.injection import Injection


def poison_inputs(injection: Injection) -> None:
    """Make one element in the model's inputs NaN; tokens cannot be, so there it is one in each embedding's output."""
    injection.on_inputs(injection.parts.model, _poisoned)
    for module in injection.parts.model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            injection.on_output(module, _poisoned)


def _poisoned(value: Any) -> Any:
    if not isinstance(value, Tensor) or not value.is_floating_point() or not value.numel():
        return value
    mask = torch.zeros(value.numel(), dtype=torch.bool, device=value.device)
    mask[value.numel() // 2] = True
    return value.masked_fill(mask.view(value.shape), torch.nan)

"""What an engine is given: the parameters of one group that share a device and a type, and all that a step needs.

An engine is a module with `run(batch)`; one that cannot run every batch has `fits(batch)` too. All give the same
result as `reference.py`, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from ava.optimization.optimizers.sentence import Sentence
from ava.optimization.optimizers.storage.codec import Codec


@dataclass(slots=True)
class Batch:
    """One engine call.

    Attributes:
        sentence: the rule.
        group: the live param group; its `lr` may be a tensor of one element.
        parameters: what is updated, in place.
        gradients: one for each parameter, of its shape; not to be written.
        states: one for each parameter, with the sentence's slots, and `step` if it is counted; updated in place.
        codec: how the slots are stored.
        grad_scale: what the gradients are multiplied with, on their device, or None.
        skip: 0-dim bool on the device; where true, nothing may change. None is never.
    """

    sentence: Sentence
    group: dict[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]
    states: list[dict[str, Tensor]]
    codec: Codec
    grad_scale: Tensor | None
    skip: Tensor | None


class Engine(Protocol):
    """Carries out a sentence."""

    def run(self, batch: Batch) -> None:
        """One update of every parameter of the batch."""
        ...


def localise(batch: Batch) -> Batch:
    """The same batch, of sharded tensors (DTensor) the local shards: for rules that are elementwise throughout."""
    if not hasattr(batch.parameters[0], "to_local"):
        return batch
    return replace(
        batch,
        parameters=[_local(parameter) for parameter in batch.parameters],
        gradients=[_local(gradient) for gradient in batch.gradients],
        states=[{key: _local(value) for key, value in state.items()} for state in batch.states],
    )


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def compute_dtype(parameter: Tensor) -> torch.dtype:
    """The type rules are computed in: 16 bits lose `1 - beta2`, so they are widened; the write rounds once."""
    return torch.float32 if parameter.dtype.itemsize < 4 else parameter.dtype


def counter_dtype(device: torch.device) -> torch.dtype:
    """The type `beta ** step` is computed in: 1 - 0.999 keeps only 4 digits in float32."""
    return torch.float32 if device.type == "mps" else torch.float64

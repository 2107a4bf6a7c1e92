"""The gradients of every objective, element by element: for methods that inner products are not enough for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import local
from ava.optimization.optimizers.engines.random import GOLDEN, mix, stream_key

_MASK = 0xFFFFFFFF
_BITS = 24
"""What a float32 holds exactly, so that a number below 1 is never rounded to 1."""


def alone(part: Tensor) -> Tensor:
    """The sum over one rank."""
    return part


@dataclass(frozen=True)
class Rows:
    """T objectives' gradients of K tensors at one step.

    Attributes:
        gradients: T lists of K tensors, None for zero. Of parameters: DTensors where they are sharded. Of features:
            (B, ...).
        features: the values of the K features, (B, ...), where the gradients are of features; None for parameters.
        step: optimizer steps taken before this one.
        seed: of the random numbers.
        sums: adds a tensor up over the ranks that share the batch; called at features level only, by all ranks alike.
    """

    gradients: Sequence[Sequence[Tensor | None]]
    features: Sequence[Tensor] | None = None
    step: int = 0
    seed: int = 0
    sums: Callable[[Tensor], Tensor] = field(default=alone)

    def uniform(self, index: int, like: Tensor) -> Tensor:
        """A number in [0, 1) for every element of this rank's part of a tensor.

        It depends on seed, step, `index` and where the element stands in the whole tensor, so shards draw what the
        whole does, and ranks and micro-batches the same.

        Args:
            index: the tensor's place among the K.
            like: what says shape and shards; of features, one sample's.

        Returns:
            float32 of the shape of the local part.
        """
        places = _places(like)
        key = stream_key(self.seed, index, self.step, 0)
        words = mix(((places * GOLDEN) & _MASK) ^ _upper(places, like) ^ key)
        return (words >> (32 - _BITS)).to(torch.float32) * 2.0**-_BITS  # type: ignore[union-attr]


def _upper(places: Tensor, whole: Tensor) -> int | Tensor:
    """What is mixed in for the upper bits of places; nothing where the whole tensor has less than 2^32 elements."""
    return mix((places >> 32) & _MASK) if whole.numel() > _MASK else 0


def _places(tensor: Any) -> Tensor:
    """The index in the flattened whole of each element of this rank's part, int64."""
    part = local(tensor)
    if not hasattr(tensor, "to_local"):
        return torch.arange(part.numel(), device=part.device).view(part.shape)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, first = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    offsets = list(first)
    places = torch.zeros(part.shape, dtype=torch.int64, device=part.device)
    for dim, (size, offset) in enumerate(zip(part.shape, offsets, strict=True)):
        along = torch.arange(offset, offset + size, device=part.device) * math.prod(tensor.shape[dim + 1 :])
        places += along.view(-1, *([1] * (part.dim() - dim - 1)))
    return places

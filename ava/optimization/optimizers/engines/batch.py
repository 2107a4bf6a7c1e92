"""What an engine is given: parameters of one group that share device, type and sentence, and all that a step needs.

An engine is a module with `run(batch)`; one that cannot run every batch has `fits(batch)` too. All give the same
result as `reference.py`, up to rounding. A run that needs sums over the parameters of all batches is a generator: it
yields what is to be summed, by name, and is sent the sums; what it returns are new values of what all parameters share.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from ava.optimization.optimizers.engines import random
from ava.optimization.optimizers.sentence import Sentence

Totals: TypeAlias = dict[str, Tensor]
Conversation: TypeAlias = Generator[Totals, Totals, Totals]


@dataclass(slots=True)
class Batch:
    """One engine call.

    Attributes:
        sentence: the rule.
        group: the live param group; its `lr` may be a tensor of one element.
        parameters: what is updated, in place.
        gradients: one for each parameter, of its shape; not to be written.
        states: one for each parameter, with the sentence's slots, and `step` if it is counted; updated in place.
        numbers: each parameter's place among all of the optimizer's, for random numbers.
        common: slots that all parameters share, 0-dim.
        grad_scale: what the gradients are multiplied with, on their device, or None.
        skip: 0-dim bool on the device; where true, nothing may change. None is never.
        memo: what an engine keeps for the next step, which may come with the same batch and new gradients.
    """

    sentence: Sentence
    group: dict[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]
    states: list[dict[str, Tensor]]
    numbers: list[int]
    common: Totals
    grad_scale: Tensor | None
    skip: Tensor | None
    memo: dict[Any, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Carries out a sentence."""

    def run(self, batch: Batch) -> Conversation | None:
        """One update of every parameter of the batch."""
        ...


def localise(batch: Batch) -> Batch:
    """The same batch, of sharded tensors (DTensor) the local shards: for rules that are elementwise throughout."""
    if not hasattr(batch.parameters[0], "to_local"):
        return batch
    return replace(
        batch,
        memo={},
        numbers=[shard_number(p, number) for p, number in zip(batch.parameters, batch.numbers, strict=True)],
        parameters=[local(parameter) for parameter in batch.parameters],
        gradients=[local(gradient) for gradient in batch.gradients],
        states=[{key: local(value) for key, value in state.items()} for state in batch.states],
    )


def shard_number(parameter: Any, number: int) -> int:
    """What sets a rank's part of a sharded parameter apart from other parts, for random numbers; replicas agree."""
    first = _first_element(parameter.device_mesh, parameter.placements, tuple(parameter.shape))
    return int(random.mix((number * random.GOLDEN + first) & 0xFFFFFFFF)) if first else number


@functools.lru_cache(maxsize=16384)
def _first_element(mesh: Any, placements: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """Where the first element of this rank's part stands among all."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    _, offsets = compute_local_shape_and_global_offset(shape, mesh, placements)
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    return sum(offset * stride for offset, stride in zip(offsets, strides, strict=True))


def local(tensor: Any) -> Tensor:
    """The rank's own part of a sharded tensor; another is given back as it is."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def compute_dtype(parameter: Tensor) -> torch.dtype:
    """The type rules are computed in: 16 bits lose `1 - beta2`, so they are widened; the write rounds once."""
    return torch.float32 if parameter.dtype.itemsize < 4 else parameter.dtype


def wide_dtype(device: torch.device) -> torch.dtype:
    """A device's widest floating-point type: for sums, and for `beta ** step` (1 - 0.999 has 4 digits in float32)."""
    return torch.float32 if device.type == "mps" else torch.float64

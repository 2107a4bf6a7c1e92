"""The objectives' gradients side by side: for each parameter its T tensors, or this rank's part of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.health.shards import Ranks, ranks
from ava.optimization.optimizers.engines.batch import local


@dataclass(frozen=True)
class Column:
    """One parameter's gradients.

    Attributes:
        index: the parameter's place.
        owner: the first gradient that is there, as it was given.
        parts: T, this rank's part of each; None for zero.
    """

    index: int
    owner: Tensor
    parts: list[Tensor | None]

    def as_matrix(self) -> Tensor | None:
        """(T, n), a view, where the tensors lie evenly spaced in one buffer; else None."""
        first, *others = self.parts
        if first is None or not others or not first.is_contiguous():
            return None
        storage, start, step = first.untyped_storage().data_ptr(), int(first.storage_offset()), 0
        for place, part in enumerate(others, 1):
            if part is None or part.dtype != first.dtype or not part.is_contiguous():
                return None
            step = step or int(part.storage_offset()) - start
            if part.untyped_storage().data_ptr() != storage or part.storage_offset() != start + place * step:
                return None
        return first.as_strided((len(self.parts), first.numel()), (step, 1)) if step >= first.numel() > 0 else None

    def flat(self) -> list[Tensor]:
        """T tensors of one dimension, zeros where there is none."""
        own = local(self.owner)
        nothing = None if all(part is not None for part in self.parts) else torch.zeros_like(own).reshape(-1)
        return [part.reshape(-1) if part is not None else nothing for part in self.parts]  # type: ignore[misc]


@dataclass(frozen=True)
class Group:
    """Parameters on one device that are shared out among the same ranks.

    Attributes:
        device: theirs.
        ranks: over which they are cut.
        is_distributed: whether they are DTensors.
        columns: one for each.
    """

    device: torch.device
    ranks: Ranks
    is_distributed: bool
    columns: list[Column] = field(default_factory=list)


def columns_of(rows: Sequence[Sequence[Tensor | None]]) -> list[Group]:
    """The gradients by parameter, grouped by where they lie; parameters without any gradient are left out.

    Raises:
        InputError: the objectives do not have the same number of tensors, or these not the same shapes.
    """
    groups: dict[Any, Group] = {}
    if len({len(row) for row in rows}) > 1:
        raise InputError(
            "every objective needs one gradient, or None, for each shared parameter.", value=[len(row) for row in rows]
        )
    for index, tensors in enumerate(zip(*rows, strict=True)):
        owner = next((tensor for tensor in tensors if tensor is not None), None)
        if owner is None:
            continue
        if any(tensor is not None and tensor.shape != owner.shape for tensor in tensors):
            shapes = [None if tensor is None else tuple(tensor.shape) for tensor in tensors]
            raise InputError(f"gradients of parameter {index} must have one shape.", value=shapes)
        owner, *whole = _without_partial(owner, *tensors)
        key = (ranks(owner), owner.device, hasattr(owner, "to_local"))
        group = groups.setdefault(key, Group(owner.device, key[0], key[2]))
        group.columns.append(Column(index, owner, [None if tensor is None else local(tensor) for tensor in whole]))
    return list(groups.values())


def like(owner: Any, part: Tensor) -> Tensor:
    """The rank's part as what `owner` is: a DTensor or the tensor itself."""
    if not hasattr(owner, "to_local"):
        return part
    from torch.distributed.tensor import DTensor

    make: Any = DTensor.from_local
    whole: Tensor = make(part, owner.device_mesh, owner.placements, shape=owner.shape, stride=owner.stride())
    return whole


def _without_partial(owner: Any, *tensors: Any) -> list[Any]:
    """The tensors cut alike, with sums that are still due between ranks (`Partial`) carried out."""
    if not hasattr(owner, "to_local"):
        return [owner, *tensors]
    from torch.distributed.tensor import Replicate

    placements = tuple(Replicate() if placement.is_partial() else placement for placement in owner.placements)
    return [
        tensor
        if tensor is None or tuple(tensor.placements) == placements
        else tensor.redistribute(placements=placements)
        for tensor in (owner, *tensors)
    ]

"""What shards know apart, put together: sums and extremes over the ranks among which gradients are cut."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

Ranks: TypeAlias = tuple[tuple[Any, int], ...]
"""(mesh, dimension) of each cut; () where every rank holds the whole."""


def placements(tensor: Tensor) -> tuple[Any, ...]:
    """How a DTensor is laid out over each dimension of its mesh; () of a plain tensor."""
    return getattr(tensor, "placements", ())


def is_partial(gradient: Tensor) -> bool:
    """Whether the ranks hold summands of a gradient rather than parts or copies of it."""
    return any(placement.is_partial() for placement in placements(gradient))


def reduce_partial(parameter: Tensor) -> Tensor:
    """A gradient of summands, summed and laid out as its parameter; `.grad` holds it afterwards."""
    gradient: Any = parameter.grad
    parameter.grad = whole = gradient.redistribute(placements=placements(parameter))
    return cast(Tensor, whole)


def ranks(gradient: Tensor) -> Ranks:
    """Where a gradient is cut; replicas count once, so only cuts are named."""
    cuts = [index for index, placement in enumerate(placements(gradient)) if hasattr(placement, "dim")]
    return tuple((cast(Any, gradient).device_mesh, index) for index in cuts)


def total(values: Tensor, over: Ranks) -> Tensor:
    """The sum over ranks, in place."""
    for mesh, index in over:
        torch.distributed.all_reduce(values, group=mesh.get_group(index))
    return values


def largest(values: Tensor, over: Ranks) -> Tensor:
    """The maximum over ranks, in place; what it makes of a NaN is not defined."""
    for mesh, index in over:
        torch.distributed.all_reduce(values, op=torch.distributed.ReduceOp.MAX, group=mesh.get_group(index))
    return values


def length(norms: Tensor, over: Ranks, *, is_wide: bool) -> Tensor:
    """The Euclidean norm of vectors of which every rank holds a part.

        m * sqrt(sum_r (norms_r / m)^2), m the largest of the norms where squares could overflow, else 1

    Args:
        norms: (n,) float64, of the parts on this rank.
        over: the ranks.
        is_wide: whether the elements are float64: the squares of any others fit into the norms' type.
    """
    if not over:
        return norms
    unit = scale_of(largest(norms.clone(), over)) if is_wide else torch.ones_like(norms)
    return total((norms / unit).square(), over).sqrt() * unit


def scale_of(norms: Tensor) -> Tensor:
    """What norms may be divided by, so that their squares stay in range: themselves, or 1 for 0, inf, nan."""
    return torch.where((norms > 0) & (norms < torch.inf), norms, torch.ones_like(norms))

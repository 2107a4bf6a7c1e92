"""How the elements of many gradients are distributed: what each group of tensors gathers, and what is made of it.

Sums and extremes are what can be put together: within a tensor, over tensors, over ranks. Mean, deviation and share
follow from them at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ava.optimization.gradients.health import shards
from ava.optimization.gradients.health.measurement import Statistics
from ava.optimization.optimizers.engines.batch import wide_dtype


@dataclass(frozen=True)
class Gathered:
    """Of some tensors.

    Attributes:
        sums: (4,) float64: the sum of the elements, and how many are zero, not a number, infinite.
        extremes: (2,) float64: the largest element, and the largest negated one; -inf where there is none.
    """

    sums: Tensor
    extremes: Tensor


def gather(tensors: list[Tensor]) -> Gathered:
    """Walk over tensors of one device with torch's operations."""
    sums, extremes = zip(*[_gather(tensor.detach()) for tensor in tensors], strict=True)
    return Gathered(torch.stack(sums).sum(0), torch.stack(extremes).amax(0))


def _gather(tensor: Tensor) -> tuple[Tensor, Tensor]:
    wide = wide_dtype(tensor.device)
    if not tensor.numel():
        return tensor.new_zeros(4, dtype=wide), tensor.new_full((2,), -torch.inf, dtype=wide)
    low, high = tensor.aminmax()
    counts = ((tensor == 0), tensor.isnan(), tensor.isinf())
    sums = [tensor.sum(dtype=wide), *[found.sum().to(wide) for found in counts]]
    return torch.stack(sums), torch.stack([high, -low]).to(wide)


def summarise(groups: list[tuple[Gathered, shards.Ranks]], norm: Tensor, count: int) -> Statistics:
    """Put groups of tensors together.

        mean = sum / n        std = sqrt((q - |mean|) (q + |mean|)), q = norm / sqrt(n)

    Args:
        groups: what each gathered, and the ranks among which its tensors are cut.
        norm: 0-dim, of all elements together.
        count: n, how many elements there are over all ranks.
    """
    sums = torch.stack([_on(norm, shards.total(group.sums, over)) for group, over in groups]).sum(0)
    extremes = torch.stack([_on(norm, shards.largest(group.extremes, over)) for group, over in groups]).amax(0)
    total, zeros, nans, infs = sums.unbind()
    # A maximum over ranks may lose a NaN; the counts do not.
    high, negative_low = torch.where(nans > 0, torch.nan, extremes).unbind()
    n = max(1, count)
    mean, root_mean_square = total / n, norm / n**0.5
    spread = (root_mean_square - mean.abs()).clamp(min=0).sqrt() * (root_mean_square + mean.abs()).sqrt()
    return Statistics(
        has_nan=(nans > 0).to(norm.dtype), has_inf=(infs > 0).to(norm.dtype), mean=mean, std=spread, max=high,
        min=-negative_low, num_zeros=zeros, sparsity=zeros / n,
    )  # fmt: skip


def nothing(norm: Tensor) -> Statistics:
    """Of no elements: zeros."""
    return Statistics(*[torch.zeros_like(norm) for _ in range(8)])


def _on(reference: Tensor, values: Tensor) -> Tensor:
    return values.to(reference.device, reference.dtype, non_blocking=reference.device.type != "cpu")

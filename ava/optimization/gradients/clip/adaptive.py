"""Adaptive gradient clipping (AGC): how large a gradient may be depends on the weights it changes.

A unit is what leads to one output: a row of a linear layer's weight, the filter of an output channel, and a vector or
a scalar as a whole. Its gradient may have at most a small share of its weights' norm.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ava.optimization.gradients.clip.limit import limit
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.gradients.health.shards import Ranks, total
from ava.optimization.optimizers.engines.batch import compute_dtype, local, wide_dtype
from ava.registry import PositiveFloat, clip


@clip
def adaptive(measured: Measurement, /, clip_norm: PositiveFloat = 0.01, eps: PositiveFloat = 1e-3) -> None:
    """AGC: each unit's gradient norm is at most a share of its weights' norm.

        g_u <- g_u * min(1, clip_norm * max(||w_u||, eps) / ||g_u||)

    Args:
        measured: the parameters and their gradients, which are changed in place.
        clip_norm: the share. The paper: 0.01 for batches of 4096 images, larger for smaller batches.
        eps: weights count as at least so large, so that those that start at 0 can leave it.

    Reference: Brock et al. 2021, https://arxiv.org/abs/2102.06171
    """
    count = len(measured.gradients)
    if not count:
        return
    norms = unit_norms([*measured.parameters, *measured.gradients])
    sizes = [units.numel() for units in norms[count:]]
    device = measured.norm.device
    weights, gradients = (torch.cat([n.to(device) for n in half]) for half in (norms[:count], norms[count:]))
    factors = torch.split(limit(gradients, clip_norm * weights.clamp(min=eps)), sizes)
    for gradient, factor in zip(map(local, measured.gradients), factors, strict=True):
        shape = (-1, *[1] * (gradient.dim() - 1)) if gradient.dim() > 1 else ()
        gradient.mul_(factor.to(gradient.device, compute_dtype(gradient)).reshape(shape))


def unit_norms(tensors: list[Tensor]) -> list[Tensor]:
    """The norm of every unit of each tensor that lies on this rank, over all the shards that hold a part of it.

    Args:
        tensors: plain ones or DTensors, laid out alike on all ranks.

    Returns:
        Of each a vector: as many as it has rows here, or one where it is a vector or a scalar.
    """
    norms = [_norms(local(tensor.detach())) for tensor in tensors]
    apart: dict[Ranks, list[int]] = defaultdict(list)
    for index, tensor in enumerate(tensors):
        if cuts := _cuts(tensor):
            apart[cuts].append(index)
    for cuts, indices in apart.items():  # one collective for all tensors that are cut alike
        squares = torch.cat([norms[index] for index in indices]).square()
        whole = torch.split(total(squares, cuts).sqrt(), [norms[index].numel() for index in indices])
        for index, norm in zip(indices, whole, strict=True):
            norms[index] = norm
    return norms


def _norms(tensor: Tensor) -> Tensor:
    """Of each unit of a plain tensor; in double precision, so that squares do not overflow."""
    rows = tensor.reshape(1, -1) if tensor.dim() < 2 else tensor.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=wide_dtype(tensor.device))
    return norms


def _cuts(tensor: Tensor) -> Ranks:
    """The ranks among which single units are cut: a tensor of rows that is cut between them has none."""
    if not isinstance(tensor, DTensor):
        return ()
    placed: list[Any] = [getattr(placement, "dim", None) for placement in tensor.placements]
    is_whole = tensor.dim() < 2
    cut = [index for index, dim in enumerate(placed) if dim is not None and (is_whole or dim % tensor.dim() != 0)]
    return tuple((tensor.device_mesh, index) for index in cut)

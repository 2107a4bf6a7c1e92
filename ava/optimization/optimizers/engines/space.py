"""What the reference engine lends to one parameter's operands: reductions over all its shards, random numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines import random
from ava.optimization.optimizers.engines.batch import compute_dtype, local


class TensorSpace:
    """The reductions of one parameter, in plain torch, in the type that rules are computed in: flags are counted in it.

    Args:
        parameter: as the optimizer holds it; a sharded one is reduced over its ranks.
        key: stream -> what sets this parameter's random numbers of this step apart.
    """

    def __init__(self, parameter: Tensor, key: Callable[[int], int | Tensor]) -> None:
        self.parameter, self.key = parameter, key
        self.dtype = compute_dtype(parameter)
        self.shards = [
            (index, placement.dim)
            for index, placement in enumerate(getattr(parameter, "placements", ()))
            if hasattr(placement, "dim")
        ]

    def sum(self, x: Any) -> Tensor:
        """Over the elements, on all ranks."""
        return self._reduced(x.sum(dtype=self.dtype), lambda dim: True)

    def row_mean(self, x: Tensor) -> Tensor:
        """Over all dimensions but the first, on all ranks that have a part of the row."""
        if self.parameter.ndim < 2:
            return self.sum(x) / max(1, self.parameter.numel())
        total = x.sum(tuple(range(1, x.ndim)), keepdim=True, dtype=self.dtype)
        return self._reduced(total, lambda dim: dim > 0) / (self.parameter.numel() // max(1, self.parameter.shape[0]))

    def col_mean(self, x: Tensor) -> Tensor:
        """Over the first dimension, on all ranks that have a part of the column."""
        if self.parameter.ndim < 2:
            return x
        return self._reduced(x.sum(0, keepdim=True, dtype=self.dtype), lambda dim: dim == 0) / max(
            1, self.parameter.shape[0]
        )

    def bits(self, stream: int) -> Tensor:
        """32 random bits an element, as int64."""
        return random.words(self.key(stream), local(self.parameter))

    def draws(self, stream: int) -> Tensor:
        """32 random bits an element to round with, as int64."""
        return random.draws(self.key(stream), local(self.parameter))

    def random(self, stream: int) -> Tensor:
        """Uniform in [0, 1), one an element."""
        dtype = torch.float64 if self.parameter.dtype == torch.float64 else torch.float32
        return (self.bits(16 + stream) >> 8).to(dtype) / 2**24

    def apply(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A function of whole tensors: shards are gathered, and of a whole result each rank keeps its part.

        What is in a list is whole on every rank and stays so: a (R, R) preconditioner has the shape of a square
        parameter, or of a shard, by chance.
        """
        if not self.shards:
            return function(*arguments)
        result = function(*(self._whole(x) for x in arguments))
        return tuple(map(self._part, result)) if isinstance(result, tuple) else self._part(result)

    def _reduced(self, x: Tensor, concerns: Callable[[int], bool]) -> Tensor:
        for mesh_dim, dim in self.shards:
            if concerns(dim):
                x = x.clone()
                torch.distributed.all_reduce(x, group=self.parameter.device_mesh.get_group(mesh_dim))  # type: ignore[attr-defined]
        return x

    def _whole(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.shape != local(self.parameter).shape:
            return x
        from torch.distributed.tensor import DTensor

        make: Any = functools.partial(DTensor.from_local, shape=self.parameter.shape, stride=self.parameter.stride())
        return make(x, self.parameter.device_mesh, self.parameter.placements).full_tensor()  # type: ignore[attr-defined]

    def _part(self, x: Any) -> Any:
        if not isinstance(x, Tensor) or x.shape != self.parameter.shape:
            return x
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = self.parameter.device_mesh, self.parameter.placements  # type: ignore[attr-defined]
        # Every rank has computed the whole: nothing is sent.
        return distribute_tensor(x.contiguous(), mesh, placements, src_data_rank=None).to_local()

"""The gradient of a part of a step's batch, beside that of the whole: what the gradient noise scale is estimated from.

    with SmallBatch(parameters) as small:      # around the backward pass of the first micro-batch
        loss.backward()
    ...                                        # the other micro-batches, and the exchange between ranks
    draw = Draw(small.square, 32, 1 / 256, measured.norm, 256)
    draw.estimates(world.sum_)                 # later: (tr(Sigma), |G|^2)

Hooks stand before the accumulation into `.grad`. There is one pass over a part of the batch even with one micro-batch,
if there are several ranks: DDP exchanges gradients only after they were accumulated.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import Node, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from ava.optimization.gradients.health.detail.noise_scale import noise_scale
from ava.optimization.optimizers.engines.batch import wide_dtype

_SMALLER = 1 - 1e-6
"""What counts as a smaller batch: a harmonic mean of equal sizes may differ from them by rounding."""


@dataclass(frozen=True)
class Draw:
    """One step's two gradients, not yet read.

    Attributes:
        small_square: `SmallBatch.square`; None where nothing was seen on this rank.
        small_size: samples (or what the loss counts) of that pass, on this rank.
        factor: what the sum of the samples' gradients was multiplied with in that pass.
        norm: 0-dim, of the mean gradient over the whole batch, over all ranks.
        big_size: samples of the whole batch, over all ranks.
    """

    small_square: Tensor | None
    small_size: float
    factor: float
    norm: Tensor
    big_size: float

    def estimates(self, sum_: Callable[[Tensor], Tensor] = lambda values: values) -> tuple[float, float] | None:
        """Estimates of tr(Sigma) and |G|^2; waits for the device. Every rank calls it.

        Args:
            sum_: adds a tensor up over ranks, in place.

        Returns:
            None where no part of the batch was seen apart: one micro-batch on one rank, or surgery.
        """
        values = torch.zeros(3, dtype=wide_dtype(self.norm.device), device=self.norm.device)
        if self.small_square is not None and self.factor and self.small_size:
            values[0] = self.small_square / (self.factor * self.small_size) ** 2
            values[1], values[2] = 1 / self.small_size, 1.0
        square, inverse, count, norm = torch.cat([sum_(values), self.norm.reshape(1).to(values)]).tolist()
        if count == 0 or count / inverse >= _SMALLER * self.big_size:
            return None
        return noise_scale(square / count, count / inverse, norm**2, self.big_size)


class SmallBatch:
    """Sees the gradient of one backward pass on this rank, before it is accumulated or averaged over ranks.

    Compiled and DDP-wrapped networks are seen too. What takes gradients by `torch.autograd.grad`, as gradient surgery
    does, never accumulates, and sharded parameters (DTensor) have no gradient of one rank: neither is seen.

    Args:
        parameters: those whose gradients count.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._nodes: list[Node] = []  # a leaf's node lives only as long as somebody holds it
        self._handles: list[RemovableHandle] = []
        self._norms: dict[int, Tensor] = {}
        self._is_usable = not any(hasattr(parameter, "placements") for parameter in self._parameters)

    def __enter__(self) -> SmallBatch:
        if self._is_usable:
            self._nodes = [get_gradient_edge(parameter).node for parameter in self._parameters]
            self._handles = [
                node.register_prehook(functools.partial(self._note, index)) for index, node in enumerate(self._nodes)
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._nodes = [], []

    @property
    def square(self) -> Tensor | None:
        """The squared norm of all gradients of the pass together, 0-dim; None where it was not seen whole."""
        if not self._is_usable or not self._norms:
            return None
        norms = list(self._norms.values())
        return torch.stack([norm.to(norms[0].device) for norm in norms]).square().sum()

    def _note(self, index: int, gradients: Sequence[Tensor | None]) -> None:
        gradient = gradients[0]
        if gradient is None:
            return
        # A shared weight in reentrant checkpoints gets its gradient in parts, whose norms do not add up.
        self._is_usable &= index not in self._norms
        self._norms[index] = torch.linalg.vector_norm(gradient.detach(), dtype=wide_dtype(gradient.device))

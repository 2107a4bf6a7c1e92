"""What one pass over the gradients found. Everything stays on the gradients' device, and nobody has read it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Of all elements of all gradients together, over all shards; 0-dim, float64 where the device has it.

    Attributes:
        has_nan: 1 where an element is not a number.
        has_inf: 1 where an element is infinite.
        mean: of the elements.
        std: their standard deviation, over n (not n - 1).
        max: the largest element.
        min: the smallest.
        num_zeros: how many elements are 0.
        sparsity: their share, 0 to 1.
    """

    has_nan: Tensor
    has_inf: Tensor
    mean: Tensor
    std: Tensor
    max: Tensor
    min: Tensor
    num_zeros: Tensor
    sparsity: Tensor


@dataclass(frozen=True)
class Measurement:
    """The gradients of a step and their norms.

    Attributes:
        parameters: those that have a gradient, in the order they were given.
        gradients: theirs; DTensors where they are sharded.
        norms: (N,) float32, the Euclidean norm of each gradient, over all its shards.
        norm: 0-dim, of all of them together; finite where every element is, also where squares overflow in float32.
        found_inf: 0-dim float32, 1 where an element is not finite, else 0: what an optimizer's `found_inf` takes.
        statistics: the others, where they were asked for.
    """

    parameters: list[Tensor]
    gradients: list[Tensor]
    norms: Tensor
    norm: Tensor
    found_inf: Tensor
    statistics: Statistics | None = None

    def without_gradients(self) -> Measurement:
        """The same to be kept: gradients are let go."""
        return replace(self, gradients=[])

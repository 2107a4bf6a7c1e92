"""A loss whose backward pass is computed by a function of ours, as one operation on the parameters.

For surgery that needs every objective's whole gradient: the passes run inside, when the seed is known (fp16 needs the
loss scale in them), and autograd gets only what came out of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ava.errors import InputError

Compute = Callable[[Tensor], Sequence[Tensor | None]]
"""0-dim seed of the backward pass -> a gradient for each leaf, or None."""


def deferred(value: Tensor, leaves: Sequence[Tensor], compute: Compute) -> Tensor:
    """A 0-dim tensor of that value, whose backward pass is `compute`; once.

    Args:
        value: 0-dim.
        leaves: what `compute` gives gradients for.
        compute: is called with the first backward pass, and forgotten.
    """
    result: Tensor = _Deferred.apply(compute, value.detach(), *leaves)  # type: ignore[no-untyped-call]
    return result


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Compute, value: Tensor, *_: Tensor) -> Tensor:
        ctx.compute = compute
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
        compute, ctx.compute = ctx.compute, None
        if compute is None:
            problem = "the backward pass of a reconciled loss was run a second time, and runs once."
            raise InputError(problem, hint="Call `process_losses` again after a new forward pass.")
        return (None, None, *compute(seed))

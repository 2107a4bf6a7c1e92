"""A linear layer whose three products are of 8-bit floats under delayed scaling.

Written by hand because torchao scales dynamically only. The layer remains an `nn.Linear` with the same parameters:
only its class changes, so names, hooks and state dicts are what they were, and the scales live beside the model.

Shape suffixes: M rows (all leading dimensions), K inputs, N outputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ava.optimization.precision.float8.hardware import as_autocast, check_product, on_aligned_rows
from ava.optimization.precision.float8.scaling import GRAD, INPUT, INPUT_AGAIN, WEIGHT, Cast, DelayedScaling


class DelayedFloat8Linear(nn.Linear):
    """`nn.Linear` in 8-bit floats; made from one by `convert`."""

    scaling: DelayedScaling
    row: int

    def forward(self, input: Tensor) -> Tensor:
        """(..., K) -> (..., N), in the input's type or in autocast's."""
        input = as_autocast(input)
        if self.scaling.scale.device != input.device:
            self.scaling.to(input.device)
        out = on_aligned_rows(self._multiply, input)
        return out if self.bias is None else out + self.bias.to(out.dtype)

    def _multiply(self, x_MK: Tensor) -> Tensor:
        record = self.training and torch.is_grad_enabled()
        arguments = (x_MK, self.weight, self.scaling, self.row, record)
        out_MN: Tensor = _Products.apply(*arguments)  # type: ignore[no-untyped-call]
        return out_MN

    def extra_repr(self) -> str:
        """Sizes, and what it computes in."""
        return f"{super().extra_repr()}, float8=delayed"


def convert(linear: nn.Linear, scaling: DelayedScaling, row: int) -> None:
    """Make `linear` compute in 8-bit floats, in place.

    Args:
        linear: sizes are multiples of 16.
        scaling: the scales of all layers.
        row: its place among them.
    """
    linear.__class__ = DelayedFloat8Linear
    linear.scaling, linear.row = scaling, row  # type: ignore[assignment]


class _Products(torch.autograd.Function):
    """The three products of a linear layer without its bias."""

    @staticmethod
    def forward(ctx: Any, x_MK: Tensor, w_NK: Tensor, scaling: DelayedScaling, row: int, record: bool) -> Tensor:
        x_amax, w_amax = _amax(x_MK), _amax(w_NK)
        x = scaling.cast(x_MK, row, INPUT, x_amax, record)
        w = scaling.cast(w_NK, row, WEIGHT, w_amax, record)
        same = scaling.dtypes[INPUT] == scaling.dtypes[INPUT_AGAIN]
        again = x if same or not ctx.needs_input_grad[1] else scaling.cast(x_MK, row, INPUT_AGAIN, x_amax)
        # The weight is cast again in the backward pass: its 8-bit copy would outlive a sharded weight.
        ctx.save_for_backward(again.data, again.inverse, w_NK, w_amax)
        ctx.scaling, ctx.row, ctx.record, ctx.x_dtype = scaling, row, record, x_MK.dtype
        return _multiply(x, Cast(w.data.t(), w.inverse), x_MK.dtype, scaling.native, fast=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_MN: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        x_data, x_inverse, w_NK, w_amax = ctx.saved_tensors
        native = ctx.scaling.native
        g = ctx.scaling.cast(g_MN, ctx.row, GRAD, _amax(g_MN), ctx.record)
        grad_x = grad_w = None
        if ctx.needs_input_grad[0]:
            grad_x = _multiply(g, ctx.scaling.cast(w_NK, ctx.row, WEIGHT, w_amax), ctx.x_dtype, native)
        if ctx.needs_input_grad[1]:
            grad_w = _multiply(Cast(g.data.t(), g.inverse), Cast(x_data, x_inverse), w_NK.dtype, native)
        return grad_x, grad_w, None, None, None


def _multiply(a: Cast, b: Cast, out_dtype: torch.dtype, native: bool, fast: bool = False) -> Tensor:
    """`a @ b`. GPUs want `a` by rows and `b` by columns; `fast` sums in fewer bits, as is usual forward."""
    check_product(a.data, b.data)
    if native:
        return torch._scaled_mm(
            a.data.contiguous(), b.data.t().contiguous().t(), scale_a=a.inverse, scale_b=b.inverse,
            out_dtype=out_dtype, use_fast_accum=fast,
        )  # fmt: skip
    with torch.autocast(a.data.device.type, enabled=False):
        return ((a.data.float() * a.inverse) @ (b.data.float() * b.inverse)).to(out_dtype)


def _amax(tensor: Tensor) -> Tensor:
    """The largest magnitude, 0-dim float32, in one pass; NaN and infinity come through."""
    low, high = torch.aminmax(tensor)
    # `-low` would make a negative zero of a tensor of zeros, and a scale of minus infinity of that.
    return torch.maximum(low.abs(), high.abs()).float()

"""Cross-entropy of a linear layer's outputs, with the memory of some rows of the logits in place of all.

With N tokens and a vocabulary of V the logits have N V numbers, and cross-entropy keeps about three such arrays: the
logits in the precision of products, in float32, and their gradient. But the loss is a sum over rows, and of a row only
its loss and its gradient are wanted, so the rows can go by a few at a time:

    z = h W^T + b                           (rows, V)
    loss += sum(logsumexp(z) - z[target])
    d = softmax(z) - onehot(target)         in the place of z
    dh = d W,  dW += d^T h,  db += sum d

The gradients are computed as the loss is, and kept until the backward pass, which multiplies them by the gradient of
the loss. These are the same three products as without chunks, and nothing is computed twice. What is kept is float32:
fp16's loss scale comes in with the backward pass only, and before that small gradients would vanish in fp16.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_HALF_RANGE = 2.0**14
"""Brings a gradient of logits, which is at most 1, near the top of fp16's range."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, bias: Tensor | None = None, ignore_index: int = -100,
    reduction: Literal["sum", "mean"] = "sum", label_smoothing: float = 0.0, chunk: int = 1024,
) -> Tensor:  # fmt: skip
    """`cross_entropy(linear(hidden, weight, bias).float(), targets)`, a few rows of the logits at a time.

        sum over n of  logsumexp(z_n) - (1 - s) z_n[t_n] - s mean(z_n),    z = hidden weight^T + bias

    Products are in autocast's type where it is on, else in that of `hidden`; softmax, loss and the sums over chunks
    are in float32 (float64 for float64). Memory beside the arguments: chunk V numbers, twice that where products have
    16 bits, and where gradients are asked for N C + V C more. There is no second derivative.

    Args:
        hidden: (N, C), what the linear layer gets.
        weight: (V, C), its weight; may be an embedding's too.
        targets: (N,) int64, 0 <= target < V, or `ignore_index`; on accelerators the range is not checked here, since
            that would wait for the device.
        bias: (V,), or None.
        ignore_index: the target that counts for nothing.
        reduction: "sum", or "mean" over the targets that count.
        label_smoothing: s, 0 <= s <= 1.
        chunk: rows of the logits at a time, > 0.

    Returns:
        The loss, 0-dim.

    Raises:
        ValueError: an argument has another shape or range.
        RuntimeError: in the backward pass, if it is asked for its own derivative (`create_graph=True`).

    Reference: Wijmans et al. 2024, Cut Your Losses in Large-Vocabulary Language Models,
        https://arxiv.org/abs/2411.09009, for the problem; Hsu et al. 2024, Liger Kernel,
        https://arxiv.org/abs/2410.10989, for gradients in the forward pass.
    """
    _check(hidden, weight, targets, bias, label_smoothing, chunk)
    _check_targets(targets, weight.shape[0], ignore_index)
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction={reduction!r}: must be 'sum' or 'mean'; single losses are not kept.")
    device = hidden.device.type
    options = _Options(ignore_index, label_smoothing, chunk, torch.is_grad_enabled())
    if torch.is_autocast_enabled(device):
        # Autocast leaves float64 as it is.
        options = options._replace(product=torch.get_autocast_dtype(device) if hidden.dtype != torch.float64 else None)
    with torch.autocast(device, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, targets, options)  # type: ignore[no-untyped-call]
    return loss if reduction == "sum" else loss / (targets != ignore_index).sum()


class _Options(NamedTuple):
    """What is no tensor.

    Attributes:
        grad: gradients are recorded.
        product: the type of products; None leaves it to the operands.
    """

    ignore_index: int
    smoothing: float
    chunk: int
    grad: bool
    product: torch.dtype | None = None


class _LinearCrossEntropy(torch.autograd.Function):
    """The loss, and for the backward pass its gradients by hidden, weight and bias."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: _Options
    ) -> Tensor:  # fmt: skip
        given = (hidden, weight, bias)
        wanted = [options.grad and tensor is not None and tensor.requires_grad for tensor in given]
        loss, gradients = _sweep(hidden, weight, bias, targets, options, wanted)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in given]
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        # Under create_graph gradients would come out as constants, and what is made of them wrong without a word.
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "linear_cross_entropy computes its gradient in the forward pass and has no second derivative. "
                "Use cross_entropy on all logits: task.chunked_loss=0."
            )
        scale = outputs[0]
        gradients = [
            None if kept is None else (kept * scale).to(dtype)
            for kept, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        ]
        return (*gradients, None, None)


def _sweep(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, options: _Options, wanted: list[bool]
) -> tuple[Tensor, list[Tensor | None]]:  # fmt: skip
    """The summed loss and the gradients that are wanted, chunk by chunk."""
    if options.product is not None:
        hidden, weight, bias = (None if t is None else t.to(options.product) for t in (hidden, weight, bias))  # type: ignore[assignment]
    exact = torch.promote_types(hidden.dtype, torch.float32)
    loss = torch.zeros((), dtype=exact, device=hidden.device)
    sums = [
        torch.zeros_like(t, dtype=exact) if t is not None and wants else None
        for t, wants in zip((hidden, weight, bias), wanted, strict=True)
    ]
    by_hidden, by_weight, by_bias = sums
    for start in range(0, len(hidden), options.chunk):
        rows = slice(start, start + options.chunk)
        logits = functional.linear(hidden[rows], weight, bias).to(exact)
        part = _loss_and_slope(logits, targets[rows], options, slope=any(wanted))
        loss = loss + part
        if by_hidden is not None:
            by_hidden[rows] = _product(logits, weight)
        if by_weight is not None:
            _add_product(by_weight, logits.T, hidden[rows])
        if by_bias is not None:
            by_bias += logits.sum(0)
        del logits  # before the next are made
    return loss, sums


def _loss_and_slope(logits: Tensor, targets: Tensor, options: _Options, slope: bool) -> Tensor:
    """The summed loss of some rows; `logits` become the loss's gradient by them if `slope`, else are used up."""
    counts = (targets != options.ignore_index).to(logits.dtype)
    place = targets.where(targets != options.ignore_index, 0).unsqueeze(1)
    logits -= logits.amax(1, keepdim=True)
    aim = logits.gather(1, place).squeeze(1)
    if options.smoothing:
        aim = torch.lerp(aim, logits.mean(1), options.smoothing)
    total = logits.exp_().sum(1)
    loss = ((total.log() - aim) * counts).sum()
    if slope:
        logits *= (counts / total).unsqueeze(1)
        if options.smoothing:
            logits -= (counts * (options.smoothing / logits.shape[1])).unsqueeze(1)
        logits.scatter_add_(1, place, (counts * (options.smoothing - 1)).unsqueeze(1))
    return loss


def _product(slope: Tensor, other: Tensor) -> Tensor:
    """`slope @ other` in float32 or better, over operands in the type of `other`."""
    if slope.dtype == other.dtype:
        return slope @ other
    if other.dtype == torch.bfloat16:
        return _wide(slope.to(other.dtype), other)
    if slope.device.type == "cpu":
        return slope @ other.to(slope.dtype)  # fp16 would flush small gradients, and is no faster here
    return _wide((slope * _HALF_RANGE).to(other.dtype), other) / _HALF_RANGE


def _wide(left: Tensor, right: Tensor) -> Tensor:
    """A product of 16-bit operands, handed out before it is rounded where the device can do that."""
    return torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else (left @ right).float()


def _add_product(total: Tensor, slope: Tensor, other: Tensor) -> None:
    """`total += slope @ other`."""
    if slope.dtype == other.dtype:
        total.addmm_(slope, other)
    else:
        total += _product(slope, other)


def _check(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None, label_smoothing: float, chunk: int
) -> None:
    shapes = tuple(hidden.shape), tuple(weight.shape), tuple(targets.shape)
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1:] != weight.shape[1:] or shapes[2] != shapes[0][:1]:
        raise ValueError("hidden, weight, targets must be (N, C), (V, C), (N,), not {}, {}, {}.".format(*shapes))
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({weight.shape[0]},), one for each row of the weight, not {tuple(bias.shape)}.")
    if not isinstance(chunk, int) or isinstance(chunk, bool) or chunk < 1:
        raise ValueError(f"chunk={chunk} must be a number of rows, at least 1.")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing} must be in [0, 1].")


def _check_targets(targets: Tensor, num_classes: int, ignore_index: int) -> None:
    if targets.dtype != torch.int64:
        raise ValueError(f"targets must be int64, not {targets.dtype}.")
    if targets.device.type != "cpu" or torch.compiler.is_compiling():
        return
    outside = ((targets < 0) | (targets >= num_classes)) & (targets != ignore_index)
    if bool(outside.any()):
        found = int(targets[outside][0])
        raise ValueError(f"targets must be in [0, {num_classes}) or ignore_index={ignore_index}; one is {found}.")

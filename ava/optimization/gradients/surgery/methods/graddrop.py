"""Gradient sign dropout."""

from __future__ import annotations

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.health import shards
from ava.optimization.gradients.health.shards import Ranks
from ava.optimization.gradients.surgery.rows import Rows
from ava.optimization.gradients.surgery.shards import Column, columns_of, like
from ava.optimization.optimizers.engines.batch import compute_dtype, local, wide_dtype
from ava.registry import Fraction, surgery


@surgery(needs="rows")
def graddrop(rows: Rows, /, leak: Fraction | tuple[Fraction, ...] = 0.0, renormalize: bool = False) -> list[Tensor]:
    """One sign for each element: drawn in proportion to the gradients that have it, all of the other are dropped.

        P = 1/2 (1 + sum_i g_i / sum_i |g_i|),    U uniform in [0, 1)
        keep_i = [P > U] [g_i > 0] + [P <= U] [g_i < 0]
        combined = sum_i (leak_i + (1 - leak_i) keep_i) g_i

    Of features A (B, ...), the signs are those of sum over the batch of sign(A) g_i: one decision for a feature, for
    all samples. An element whose gradients have one sign is never dropped. Of parameters, the expectation of the
    combined gradient is the sum.

    Args:
        rows: the gradients.
        leak: the share of every gradient that passes in any case; one number, or one of each objective.
        renormalize: scale each tensor of the result to the norm of the sum of its gradients.

    Returns:
        K tensors, of the type of the first objective's; not finite where a gradient is not.

    Raises:
        InputError: there are more or fewer leaks than objectives, or the rows do not have the same tensors.

    Reference: Chen et al. 2020, https://arxiv.org/abs/2010.06808
    """
    num_objectives = len(rows.gradients)
    leaks = leak if isinstance(leak, tuple) else (leak,) * num_objectives
    if len(leaks) != num_objectives:
        problem = f"graddrop needs one leak, or one of each of the {num_objectives} objectives."
        raise InputError(problem, key="leak", value=leak)
    combined: dict[int, Tensor] = {}
    for group in columns_of(rows.gradients):
        for column in group.columns:
            combined[column.index] = _combine(rows, column, group.ranks, leaks, renormalize)
    return [combined[index] for index in range(len(rows.gradients[0]))]


def _combine(rows: Rows, column: Column, cut: Ranks, leaks: tuple[float, ...], renormalize: bool) -> Tensor:
    part = local(column.owner)
    given = torch.stack([torch.zeros_like(part) if g is None else g for g in column.parts]).to(compute_dtype(part))
    signed, like_one = given, column.owner
    if rows.features is None and not renormalize and len(set(leaks)) == 1:
        kept = _kept(given, leaks[0], rows.uniform(column.index, like_one))
        return like(column.owner, kept.to(part.dtype))
    if rows.features is not None:
        signed = rows.sums((torch.sign(rows.features[column.index]) * given).sum(1))
        like_one = part.new_empty(part.shape[1:])
    size = signed.abs().sum(0)
    # Where all are 0 nothing is dropped, whatever is drawn.
    purity = 0.5 * (1 + signed.sum(0) / torch.where(size == 0, torch.ones_like(size), size))
    is_positive = purity > rows.uniform(column.index, like_one)
    combined = torch.zeros_like(given[0])
    for gradient, sign, leak in zip(given, signed, leaks, strict=True):
        keep = torch.where(is_positive, sign >= 0, sign <= 0).to(gradient.dtype)
        # A product, not a selection: what is not finite stays so and is seen by whoever guards the step.
        combined = combined + (leak + (1 - leak) * keep) * gradient
    if renormalize:
        combined = combined * _ratio(rows, cut, given.sum(0), combined).to(combined.dtype)
    return like(column.owner, combined.to(part.dtype))


def _kept(given: Tensor, leak: float, drawn: Tensor) -> Tensor:
    """The same of parameters with one leak, from the sums of positive and of negative parts alone.

    P = p / (p - n)
    """
    positive, negative = given.clamp(min=0).sum(0), given.clamp(max=0).sum(0)
    size = positive - negative
    kept = torch.where(positive / torch.where(size == 0, torch.ones_like(size), size) > drawn, positive, negative)
    kept = kept + 0 * size  # a selection would hide what is not finite
    return kept if leak == 0 else leak * (positive + negative) + (1 - leak) * kept


def _ratio(rows: Rows, cut: Ranks, before: Tensor, after: Tensor) -> Tensor:
    """The norm of the sum over that of the result, over all parts of the tensor; 1 where the result is 0."""
    dtype = wide_dtype(before.device)
    squares = torch.stack([torch.linalg.vector_norm(tensor, dtype=dtype) ** 2 for tensor in (before, after)])
    squares = shards.total(squares, cut) if rows.features is None else rows.sums(squares)
    return torch.where(squares[1] == 0, torch.ones_like(squares[0]), squares[0] / squares[1]).sqrt()

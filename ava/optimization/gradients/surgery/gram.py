"""Inner products of the objectives' gradients, and the sum of the gradients with weights.

Products are made in float32, where matrix multiplication is fastest; the sums of every two thousand are added up in
float64. Where squares leave the range of float32 though the elements are inside (gradients of size 1e25 or 1e-25),
everything is done again in float64. Of sharded parameters every rank multiplies its shards and the ranks add up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.shards import Group, columns_of, like

_ON_CPU = 2**16
_ON_ACCELERATOR = 2**20
"""Elements of a row in one block: on a processor it stays in the cache, on an accelerator it fills the device."""

_TERMS = 2**11
"""Products added up in float32: costs an accuracy of 3e-8 of the squared norm, where 65,536 would cost 1e-6."""

_LEAST = 2.0**-66
"""Squared norms below it may have lost more than a millionth to underflow: 2^40 products of 2^-126."""

Rows = Sequence[Sequence[Tensor | None]]


@torch.no_grad()
def gram_matrix(rows: Rows, sums: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """The inner product of every two objectives' gradients.

        G_ij = sum_k <g_ik, g_jk>

    Quickest where each parameter's T tensors are the rows of one (T, n) buffer: nothing is copied then.

    Args:
        rows: T lists of K tensors, one for each shared parameter; None for zero. Sharded ones (DTensor) are added up
            over the ranks that hold the shards, replicated ones are counted once.
        sums: adds a (T, T) tensor up over the ranks where plain tensors are a rank's own part; called by all
            ranks alike, on a device once, or twice where the range of float32 is left. None where they are whole.

    Returns:
        (T, T) float64 on the CPU, the same on all ranks. An objective with an element that is not finite has a row
        that is not finite.

    Raises:
        InputError: the objectives do not have the same number of tensors, or these not the same shapes.
    """
    groups = columns_of(rows)
    gram = _total(groups, len(rows), sums, exact=False)
    absent = torch.tensor([all(gradient is None for gradient in row) for row in rows])
    if bool((absent | (gram.diagonal() >= _LEAST)).all()) and bool(gram.isfinite().all()):
        return gram
    return _total(groups, len(rows), sums, exact=True)


@torch.no_grad()
def combine(rows: Rows, weights: Tensor) -> list[Tensor | None]:
    """The objectives' gradients added up with weights.

        d_k = sum_i w_i g_ik

    Args:
        rows: T lists of K tensors; None for zero.
        weights: (T,), on the CPU.

    Returns:
        K new tensors, of the type of the first objective's, sharded where the gradients are; None where no objective
        has one.

    Raises:
        InputError: the objectives do not have the same number of tensors, or there is not a weight for each.
    """
    if len(weights) != len(rows):
        raise InputError(f"{len(rows)} objectives need as many weights.", value=len(weights))
    combined: list[Tensor | None] = [None] * len(rows[0])
    for group in columns_of(rows):
        totals: list[Tensor | None] = [None] * len(group.columns)
        for index, weight in enumerate(weights.tolist()):
            _add_row(totals, [column.parts[index] for column in group.columns], weight)
        for column, total in zip(group.columns, totals, strict=True):
            if total is not None:
                combined[column.index] = like(column.owner, total.to(column.owner.dtype))
    return combined


def _add_row(totals: list[Tensor | None], row: list[Tensor | None], weight: float) -> None:
    """`totals += weight * row`, in place; 16 bits are widened, so that the sum is rounded once."""
    wide = {k: part.float() if part.element_size() < 4 else part for k, part in enumerate(row) if part is not None}
    begun = {k: total for k, total in enumerate(totals) if total is not None and k in wide}
    if begun:
        torch._foreach_add_(list(begun.values()), [wide[k] for k in begun], alpha=weight)
    new = [k for k in wide if k not in begun]
    if new:
        for k, product in zip(new, torch._foreach_mul([wide[k] for k in new], weight), strict=True):
            totals[k] = product


def _total(groups: list[Group], num_rows: int, sums: Callable[[Tensor], Tensor] | None, exact: bool) -> Tensor:
    total = torch.zeros(num_rows, num_rows, dtype=torch.float64)
    for group in groups:
        part = _products(group, num_rows, exact)
        for mesh, dim in group.ranks:
            torch.distributed.all_reduce(part, group=mesh.get_group(dim))
        if sums is not None and not group.is_distributed:
            part = sums(part)
        total += part.to("cpu", torch.float64)
    return total


def _products(group: Group, num_rows: int, exact: bool) -> Tensor:
    """(T, T) of one rank's parts, on their device, float64 where the device has it."""
    wide = torch.float32 if group.device.type == "mps" else torch.float64
    total = torch.zeros(num_rows, num_rows, dtype=wide, device=group.device)
    with _full_precision():
        for block in _blocks(group, _ON_CPU if group.device.type == "cpu" else _ON_ACCELERATOR):
            matrix = block.to(wide) if exact else block.float() if block.element_size() < 4 else block
            total += _squared(matrix, wide)
    return total


def _squared(matrix: Tensor, wide: torch.dtype) -> Tensor:
    """The matrix (T, n) times its transpose; no more than `_TERMS` products are added up in its own type."""
    num_chunks = matrix.shape[1] // _TERMS
    chunks = matrix[:, : num_chunks * _TERMS].view(len(matrix), num_chunks, _TERMS).transpose(0, 1)
    rest = matrix[:, num_chunks * _TERMS :]
    return torch.bmm(chunks, chunks.mT).sum(0, dtype=wide) + (rest @ rest.T).to(wide)


def _blocks(group: Group, limit: int) -> Iterator[Tensor]:
    """(T, n) matrices that together are all elements, n at most `limit`."""
    pieces: list[Sequence[Tensor]] = []
    waiting = 0
    for column in group.columns:
        matrix = column.as_matrix()
        if matrix is not None:
            yield from torch.split(matrix, limit, dim=1)
            continue
        for piece in zip(*(torch.split(row, limit) for row in column.flat()), strict=True):
            if waiting + len(piece[0]) > limit:
                yield _joined(pieces)
                pieces, waiting = [], 0
            pieces.append(piece)
            waiting += len(piece[0])
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[Sequence[Tensor]]) -> Tensor:
    num_rows, length = len(pieces[0]), sum(len(piece[0]) for piece in pieces)
    return torch.cat([piece[row] for row in range(num_rows) for piece in pieces]).view(num_rows, length)


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """Products in float32 proper: TF32 and bfloat16 keep three digits, too few to tell small conflicts."""
    mkldnn: Any = torch.backends.mkldnn
    backends: list[Any] = [torch.backends.cuda.matmul, mkldnn.matmul]
    lowered = [(backend, backend.fp32_precision) for backend in backends]
    lowered = [(backend, precision) for backend, precision in lowered if precision not in ("none", "ieee")]
    try:
        for backend, _ in lowered:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in lowered:
            backend.fp32_precision = precision

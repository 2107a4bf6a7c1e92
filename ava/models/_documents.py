"""Several documents in one sequence, none of which sees another.

A packed sequence holds documents side by side; `documents` gives each token a number that changes from one document to
the next. Within a document everything is as if it stood alone: positions count from its first token, attention and the
convolution reach back to that token and no further.

Three ways give the same attention, each where it is the fastest:

    lengths   a CPU without compiler: the documents one after another, without a product for what is masked
    blocks    CUDA: FlexAttention, which skips the tiles in which nothing is seen
    mask      everything else (compiled on a CPU; dropout on CUDA): (B, 1, T, T) booleans for torch's own attention

Shape suffixes as in `ava.models._transformer`: B batch, T tokens, H heads, D width of one head.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_NARROWEST = 16
"""Heads below this width have no FlexAttention."""


class Layout(NamedTuple):
    """Where the documents of a batch lie; one of the last three is given.

    Attributes:
        positions: (B, T) int64, the number of tokens before each in its document.
        lengths: of all documents of all rows, in order; their sum is B T.
        mask: (B, 1, T, T), whether a token (third axis) sees another (fourth).
        blocks: the same as a BlockMask.
    """

    positions: Tensor
    lengths: tuple[int, ...] | None = None
    mask: Tensor | None = None
    blocks: Any = None


def layout(documents: Tensor, head_width: int, dropout: float = 0.0) -> Layout:
    """The layout of a batch, for the attention that suits its device.

    Args:
        documents: (B, T) integers; neighbours with the same number are of the same document.
        head_width: D.
        dropout: on attention weights, which FlexAttention does not have.
    """
    positions, number = _positions(documents), _numbered(documents)
    if documents.is_cuda and not dropout and head_width >= _NARROWEST:
        return Layout(positions, blocks=block_mask(number))
    if documents.device.type == "cpu" and not torch.compiler.is_compiling():
        return Layout(positions, lengths=_lengths(positions))
    return Layout(positions, mask=causal_mask(number))


def attend(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, where: Layout, dropout: float = 0.0) -> Tensor:
    """Causal attention within each document: softmax(q k^T / sqrt(D)) v over its own earlier tokens, (B, H, T, D)."""
    if where.lengths is not None:
        return _one_by_one(q_BHTD, k_BHTD, v_BHTD, where.lengths, dropout)
    if where.blocks is not None:
        y_BHTD: Tensor = _flex_attention()(q_BHTD, k_BHTD, v_BHTD, block_mask=where.blocks)
        return y_BHTD
    return functional.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=where.mask, dropout_p=dropout)


def causal_mask(number: Tensor) -> Tensor:
    """(B, 1, T, T) booleans: same document (`number`, (B, T)) and not later."""
    length = number.shape[1]
    same = number[:, None, :, None] == number[:, None, None, :]
    return same & torch.ones(length, length, dtype=torch.bool, device=number.device).tril()


def block_mask(number: Tensor) -> Any:
    """The same as FlexAttention's BlockMask."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (number[batch, query] == number[batch, key]) & (key <= query)

    rows, length = number.shape
    # Uncompiled it makes (B, T, T) booleans; in a graph it is compiled with what is around it.
    alone = not torch.compiler.is_compiling()
    return create_block_mask(sees, rows, None, length, length, device=str(number.device), _compile=alone)


@functools.cache
def _flex_attention() -> Any:
    """FlexAttention is a kernel only once it is compiled; as it stands it holds all scores."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def _one_by_one(q_BHTD: Tensor, k_BHTD: Tensor, v_BHTD: Tensor, lengths: tuple[int, ...], dropout: float) -> Tensor:
    rows, heads, length, width = q_BHTD.shape
    # Split, not slices: its gradient is one concatenation, that of slices an array of zeros each.
    q, k, v = (x.transpose(0, 1).reshape(1, heads, rows * length, width) for x in (q_BHTD, k_BHTD, v_BHTD))
    parts = zip(*(torch.split(x, list(lengths), dim=2) for x in (q, k, v)), strict=True)
    y = [functional.scaled_dot_product_attention(a, b, c, is_causal=True, dropout_p=dropout) for a, b, c in parts]
    return torch.cat(y, dim=2).view(heads, rows, length, width).transpose(0, 1)


def _is_first(documents: Tensor) -> Tensor:
    """(B, T) booleans: the first tokens of documents; a row begins with one."""
    changes = documents[:, 1:] != documents[:, :-1]
    return functional.pad(changes, (1, 0), value=True)


def _positions(documents: Tensor) -> Tensor:
    place = torch.arange(documents.shape[1], device=documents.device).expand_as(documents)
    return place - place.where(_is_first(documents), 0).cummax(1).values


def _numbered(documents: Tensor) -> Tensor:
    """(B, T): the documents of each row as 1, 2, ...; a number that comes back is another document."""
    return _is_first(documents).cumsum(1)


def _lengths(positions: Tensor) -> tuple[int, ...]:
    """Of the documents of all rows; waits for nothing on a CPU."""
    starts = (positions.flatten() == 0).nonzero().squeeze(1)
    ends = functional.pad(starts[1:], (0, 1), value=positions.numel())
    return tuple((ends - starts).tolist())

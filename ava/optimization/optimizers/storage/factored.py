"""Factored storage: the elements laid out as a nearly square matrix, its magnitudes as rank 1, its signs as bits.

    |value| = row (x) column,  row = row sums, column = column sums / total;  sign bit = value > 0

The outer product has the right sum in every row and column. After Park & Lee 2024 (SMMF),
https://arxiv.org/abs/2412.08894: moments are decoded, updated at full size, used, and factored again, so an update
is made from the uncompressed ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.codec import Bits

ELONGATED = 16
"""A matrix more elongated than this is padded to a square instead: a prime number of elements has no other."""


class Factored:
    """Two vectors of about the square root of the size; a signed slot a bit an element besides."""

    draws = False

    def keys(self, slot: Slot) -> tuple[str, ...]:
        """The factors, and the packed signs of what has signs."""
        factors = (f"{slot.name}.row", f"{slot.name}.column")
        return (*factors, f"{slot.name}.sign") if slot.signed else factors

    def decode(self, state: Mapping[str, Tensor], slot: Slot, like: Tensor) -> Tensor:
        """The outer product, with its signs."""
        row, column = state[f"{slot.name}.row"].to(like.dtype), state[f"{slot.name}.column"].to(like.dtype)
        value = torch.outer(row, column).reshape(-1)[: like.numel()]
        if slot.signed:
            positive = unpack(state[f"{slot.name}.sign"], like.numel())
            value = torch.where(positive, value, -value)
        return value.view(like.shape)

    def encode(self, value: Tensor, slot: Slot, bits: Bits) -> dict[str, Tensor]:
        """Row and column sums of the magnitudes."""
        rows, columns = square_shape(value.numel())
        value = value.float() if value.dtype.itemsize < 4 else value  # 16 bits have no 1e-37 and few digits for sums
        matrix = pad(value.reshape(-1).abs(), (0, rows * columns - value.numel())).view(rows, columns)
        row, column = matrix.sum(1), matrix.sum(0)
        column = column / column.sum().clamp(min=1e-37)
        parts = {f"{slot.name}.row": row.float(), f"{slot.name}.column": column.float()}
        if slot.signed:
            parts[f"{slot.name}.sign"] = pack(value.reshape(-1) > 0)
        return parts


@functools.cache
def square_shape(size: int) -> tuple[int, int]:
    """Rows and columns, at most one more than rows, of the nearly square matrix that holds `size` elements."""
    columns = next((c for c in range(math.isqrt(size), 0, -1) if size % c == 0), 1)
    if size > ELONGATED * columns * columns:
        columns = math.isqrt(size - 1) + 1
    return -(-size // columns), columns


def pack(flags: Tensor) -> Tensor:
    """Eight flags a byte, the lowest bit first."""
    flat = pad(flags.to(torch.uint8), (0, -flags.numel() % 8)).view(-1, 8)
    return (flat << _shifts(flags.device)).sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, size: int) -> Tensor:
    """The first `size` flags of packed bytes."""
    return ((packed[:, None] >> _shifts(packed.device)) & 1).bool().reshape(-1)[:size]


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(8, device=device, dtype=torch.uint8)

"""8-bit storage: blocks of 256 elements share a scale, and codes are finer towards zero.

A code is the upper part of the float `|value| / scale + c`, less that of `c`: steps grow with the value, a 16th of
each power of two, and become even below `c`, where code 0 is 0. The scale is the block's largest magnitude;

    signed        7 bits and the sign, c = 1.125 / 2^8: even steps of 2.4e-4 of the scale at the bottom
    non-negative  8 bits, c = 1.125 / 2^16: of 1e-6, for second moments span more

Codes are rounded up or down at random with the right odds, so that slow means move. What is positive
never becomes 0: a second moment that is too large makes a small step, one that is 0 an endless one. Kernels spend on it
an addition and a shift, no root and no table.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.codec import Bits

BLOCK = 256


KEPT = 19
"""Bits of a float that a code leaves out: 4 of its fraction stay."""
BIAS = {True: 0x3B900000, False: 0x37900000}
"""The float c, as bits: for signed values, and for non-negative ones. A multiple of 2^KEPT, so that no two neighbours
have a power of two between them: there a float's steps double, and the odds of rounding would be wrong."""
LAST = {True: 127, False: 255}


class Int8:
    """A byte an element, and a float32 a block."""

    draws = True

    def keys(self, slot: Slot) -> tuple[str, ...]:
        """The codes, in the parameter's shape, and the blocks' scales."""
        return slot.name, f"{slot.name}.scale"

    def decode(self, state: Mapping[str, Tensor], slot: Slot, like: Tensor) -> Tensor:
        """Codes to values."""
        codes, scale = state[slot.name], state[f"{slot.name}.scale"]
        code = _blocks(codes.reshape(-1).to(torch.int32))
        bias = torch.full_like(scale, BIAS[slot.signed], dtype=torch.int32)
        share = ((code.abs() << KEPT) + bias[:, None]).view(torch.float32) - bias.view(torch.float32)[:, None]
        value = share * scale[:, None] * code.sign()
        return value.reshape(-1)[: codes.numel()].view(like.shape).to(like.dtype)

    def encode(self, value: Tensor, slot: Slot, bits: Bits) -> dict[str, Tensor]:
        """Values to codes, each rounded to one of its two neighbours."""
        flat = _blocks(value.reshape(-1).float())
        scale = flat.abs().amax(1)
        over = 1 / scale.clamp(min=1e-38)
        bias = torch.full_like(scale, BIAS[slot.signed], dtype=torch.int32)
        raised = flat.abs() * over[:, None] + bias.view(torch.float32)[:, None]
        noise = _blocks(bits().reshape(-1)).to(torch.int32) << (KEPT - 16)
        code = ((raised.view(torch.int32) + noise - bias[:, None]) >> KEPT).clamp(max=LAST[slot.signed])
        code = code * flat.sign().to(torch.int32) if slot.signed else torch.where(flat > 0, code.clamp(min=1), code)
        stored = code.reshape(-1)[: value.numel()].view(value.shape)
        return {slot.name: stored.to(torch.int8 if slot.signed else torch.uint8), f"{slot.name}.scale": scale}


def _blocks(flat: Tensor) -> Tensor:
    """The elements in rows of a block each, zeros behind the last."""
    return pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)

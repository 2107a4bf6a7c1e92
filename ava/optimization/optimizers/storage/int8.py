"""8-bit storage: blocks of 256 elements share a scale, and codes are finer towards zero.

    signed       value = sign(c) (|c| / 127)^2 scale     c in -127 .. 127
    non-negative value = (c / 255)^4 scale               c in 0 .. 255

The scale is the block's largest magnitude. The square reaches down to 6e-5 of it, the fourth power to 2e-10, as
second moments span. Codes are rounded at random with the right odds, so that slow means move. What is
positive never becomes 0: a second moment that is too large makes a small step, one that is 0 an endless one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.codec import Bits

BLOCK = 256


class Int8:
    """A byte an element, and a float32 a block."""

    draws = True

    def keys(self, slot: Slot) -> tuple[str, ...]:
        """The codes, in the parameter's shape, and the blocks' scales."""
        return slot.name, f"{slot.name}.scale"

    def decode(self, state: Mapping[str, Tensor], slot: Slot, like: Tensor) -> Tensor:
        """Codes to values."""
        codes, scale = state[slot.name], state[f"{slot.name}.scale"]
        share = _blocks(codes.reshape(-1).to(like.dtype)) / (127 if slot.signed else 255)
        share = share * share.abs() if slot.signed else (share * share) * (share * share)
        return (share * scale.to(like.dtype)[:, None]).reshape(-1)[: codes.numel()].view(like.shape)

    def encode(self, value: Tensor, slot: Slot, bits: Bits) -> dict[str, Tensor]:
        """Values to codes, each rounded to one of its two neighbours."""
        flat = _blocks(value.reshape(-1))
        scale = flat.abs().amax(1).float()
        share = flat.abs() / scale.to(flat.dtype).clamp(min=1e-38)[:, None]
        root = share.sqrt() * 127 if slot.signed else share.sqrt().sqrt() * 255
        noise = _blocks(bits().reshape(-1)).to(flat.dtype) / 65536
        code = (root + noise).floor().clamp(max=127 if slot.signed else 255)
        code = code * flat.sign() if slot.signed else torch.where(flat > 0, code.clamp(min=1), code)
        dtype = torch.int8 if slot.signed else torch.uint8
        return {slot.name: code.reshape(-1)[: value.numel()].view(value.shape).to(dtype), f"{slot.name}.scale": scale}


def _blocks(flat: Tensor) -> Tensor:
    """The elements in rows of a block each, zeros behind the last."""
    return pad(flat, (0, -flat.numel() % BLOCK)).view(-1, BLOCK)

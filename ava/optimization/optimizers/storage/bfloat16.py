"""bfloat16 storage: half of float32's bytes, rounded up or down at random.

Rounded to nearest, a running mean with decay 0.999 would stand still: what a step adds is less than half of the
last of its 8 bits. Rounded at random with the right odds, it moves right in the mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.codec import Bits


class BFloat16:
    """The value's upper 16 bits."""

    draws = True

    def keys(self, slot: Slot) -> tuple[str, ...]:
        """The slot's name."""
        return (slot.name,)

    def decode(self, state: Mapping[str, Tensor], slot: Slot, like: Tensor) -> Tensor:
        """The stored tensor, cast."""
        return state[slot.name].to(like.dtype)

    def encode(self, value: Tensor, slot: Slot, bits: Bits) -> dict[str, Tensor]:
        """The value rounded to one of its two neighbours."""
        return {slot.name: round_at_random(value, torch.bfloat16, bits())}


def round_at_random(value: Tensor, dtype: torch.dtype, bits: Tensor) -> Tensor:
    """Round to bfloat16 or float16, up with the probability of the way that is left below.

    Args:
        value: any floating type.
        dtype: torch.bfloat16 or torch.float16.
        bits: 16 random bits an element, int64.

    Returns:
        The rounded tensor; infinities and NaNs stay what they are, and nothing finite becomes infinite.
    """
    wide = value.float()
    kept = 16 if dtype is torch.bfloat16 else 13
    raw = wide.view(torch.int32).to(torch.int64)
    noise = bits >> (16 - kept)
    rounded = (((raw + noise) >> kept) << kept).to(torch.int32).view(torch.float32)
    limit = torch.finfo(dtype).max
    rounded = rounded.clamp(-limit, limit)
    return torch.where(wide.isfinite(), rounded, wide).to(dtype)

"""Random numbers without a generator: a hash of seed, parameter, step, stream and place.

The same on every engine, and nothing to save: a resumed training draws what an unbroken one would.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
GOLDEN = 0x9E3779B1


def mix(x: int | Tensor) -> int | Tensor:
    """Scramble 32 bits (Wellons' lowbias32), held in an int or an int64 tensor."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def stream_key(seed: int, number: int, step: int | Tensor, stream: int) -> int | Tensor:
    """What sets one parameter's numbers of one step and stream apart from all others.

    Args:
        seed: the param group's.
        number: the parameter's place among all parameters.
        step: the update's number; a tensor where it may not be read.
        stream: which of the step's sequences.
    """
    base = mix((seed & _MASK) ^ ((seed >> 32) & _MASK))
    base = mix((base + number * GOLDEN) & _MASK)
    base = mix((base + step * 0x85EBCA6B) & _MASK)
    return mix((base + stream * 0xC2B2AE35) & _MASK)


def words(key: int | Tensor, like: Tensor) -> Tensor:
    """32 random bits for each element of `like`, as int64."""
    place = torch.arange(like.numel(), device=like.device, dtype=torch.int64).view(like.shape)
    return mix(((place * GOLDEN) & _MASK) ^ key)  # type: ignore[return-value]


def draws(key: int | Tensor, like: Tensor) -> Tensor:
    """32 bits for each element of `like`, as int64, to round with: a Weyl sequence from a random start.

    From step to step, which changes the key, an element's numbers are as random as the key is; within a step they are
    spread evenly over the elements, which is all that rounding asks, at a tenth of a hash's cost.
    """
    place = torch.arange(like.numel(), device=like.device, dtype=torch.int64).view(like.shape)
    return (place * GOLDEN + key) & _MASK

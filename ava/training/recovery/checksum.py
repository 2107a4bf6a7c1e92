"""A number that tells two sets of weights apart, in one pass over them and without leaving the device.

The bits are read as 64-bit integers in rows of K; columns are added up, and the sums with odd weights:

    checksum = sum_j w_j sum_i bits[i, j]    (mod 2^64)

An odd number has an inverse modulo 2^64, so a change in a single place, however small, always changes it; changes in
many places cancel once in about 2^64 times, unless they lie in one column and add up to nothing. NaN has bits like any
other value.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

_COLUMNS = 1021
"""A prime: what repeats at distances of powers of 2 falls into different columns."""
_WORD = 8
"""Bytes."""


@torch.no_grad()
def checksum(tensors: Sequence[Tensor]) -> Tensor:
    """One number for all bits of some tensors on one device.

    Returns:
        0-dim int64 there; not read here.
    """
    sums = torch.stack([_of_one(tensor) for tensor in tensors])
    weights = _weights(_COLUMNS + _WORD + len(sums), sums.device)[_COLUMNS + _WORD :]
    return (sums * weights).sum()


@torch.no_grad()
def total(tensors: Sequence[Tensor]) -> Tensor:
    """A number at a third of the price: all bits as integers, added up whatever their places; one change is still seen.

    Returns:
        0-dim int64, on the device of the first tensor; not read here.
    """
    small: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel() == 1:
            small.setdefault((tensor.device, tensor.dtype), []).append(tensor.detach().reshape(1))
    joined = [torch.cat(some) for some in small.values()]
    pieces = [piece for one in [*(t for t in tensors if t.numel() > 1), *joined] for piece in _words(one)]
    sums = [piece.sum(dtype=torch.int64) for piece in pieces if piece.numel()]
    return torch.stack([one.to(sums[0].device) for one in sums]).sum() if sums else torch.zeros((), dtype=torch.int64)


def _of_one(tensor: Tensor) -> Tensor:
    words, rest = _words(tensor)
    rows = words[: words.numel() // _COLUMNS * _COLUMNS].view(-1, _COLUMNS)
    last = words[rows.numel() :]
    columns = torch.zeros(_COLUMNS + _WORD, dtype=torch.int64, device=tensor.device)
    columns[:_COLUMNS] = rows.sum(0)
    columns[: last.numel()] += last
    columns[_COLUMNS : _COLUMNS + rest.numel()] = rest
    return (columns * _weights(_COLUMNS + _WORD, tensor.device)).sum()


def _words(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The bits as int64, and the last bytes that do not fill one."""
    values = tensor.detach()
    flat = (torch.view_as_real(values) if values.is_complex() else values).contiguous().view(-1)
    per_word = _WORD // flat.element_size()
    if flat.storage_offset() % per_word:
        flat = flat.clone()
    whole = flat.numel() // per_word * per_word
    return flat[:whole].view(torch.int64), flat[whole:].view(torch.uint8)


@functools.lru_cache(maxsize=8)
def _weights(count: int, device: torch.device) -> Tensor:
    """Odd numbers, the same in all processes; of two counts the first ones are the same."""
    drawn = torch.randint(-(2**62), 2**62, (count,), generator=torch.Generator().manual_seed(0))
    return (drawn * 2 + 1).to(device)

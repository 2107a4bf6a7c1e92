"""Which pieces of documents make up which sequence of T tokens.

A document longer than T is cut into floor(n / T) pieces of T and one of the rest; pieces shorter than T share
sequences:

    best fit   the longest first, each where it leaves the least space free; hardly any padding
    in order   a new sequence where the next piece does not fit, so that all stand in the order of the text

Reference: Ding et al. 2024, Fewer Truncations Improve Language Modeling, https://arxiv.org/abs/2404.10830, for best
fit; Krell et al. 2021, Efficient Sequence Packing without Cross-contamination, https://arxiv.org/abs/2107.02027.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ava.data.documents import Integers


class Plan(NamedTuple):
    """Which pieces make up which sequence.

    Attributes:
        owner: (P,) the document of each piece, sequence after sequence.
        piece: (P,) 0 <= piece < floor(n / T) for one of T tokens; floor(n / T) for the rest.
        first: (R + 1,) where each of the R sequences begins in these.
    """

    owner: Integers
    piece: Integers
    first: Integers


def plan_in_order(lengths: Integers, context: int) -> Plan:
    """Pieces as they come; a sequence ends where the next one does not fit."""
    whole, rest = np.divmod(lengths, context)
    counts = whole + (rest > 0)
    owner, piece = np.repeat(np.arange(len(lengths)), counts), within(counts)
    first, used = [0], 0
    for index, size in enumerate(np.where(piece == whole[owner], rest[owner], context).tolist()):
        if used + size > context:
            first.append(index)
            used = 0
        used += size
    return Plan(owner, piece, np.array([*first, len(owner)] if len(owner) else [0], dtype=np.int64))


def plan_best_fit(lengths: Integers, context: int) -> Plan:
    """Pieces of `context` tokens first, each a sequence; then the rests, by best fit."""
    whole, rest = np.divmod(lengths, context)
    owner = np.repeat(np.arange(len(lengths)), whole)
    short = np.flatnonzero(rest)
    row = best_fit(rest[short], context)
    order = np.argsort(row, kind="stable")
    sizes = np.concatenate((np.ones(len(owner), dtype=np.int64), np.bincount(row)))
    return Plan(
        np.concatenate((owner, short[order])),
        np.concatenate((within(whole), whole[short[order]])),
        np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes))),
    )


def best_fit(sizes: Integers, capacity: int) -> Integers:
    """Best-fit decreasing: the number of the bin that each item goes into, (P,).

    About a microsecond an item: bins stand in stacks by the space they have left, and the bits of one integer say which
    stacks are not empty.

    Args:
        sizes: (P,) 1 <= size <= capacity.
        capacity: of each bin.
    """
    bins = np.zeros(len(sizes), dtype=np.int64)
    stacks: list[list[int]] = [[] for _ in range(capacity + 1)]
    spaces, opened = 0, 0
    order = np.argsort(-sizes, kind="stable")
    for item, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = spaces >> size
        if fitting:
            space = size + (fitting & -fitting).bit_length() - 1
            chosen = stacks[space].pop()
            if not stacks[space]:
                spaces ^= 1 << space
        else:
            space, chosen, opened = capacity, opened, opened + 1
        bins[item] = chosen
        stacks[space - size].append(chosen)
        spaces |= 1 << (space - size)
    return bins


def within(counts: Integers) -> Integers:
    """0, 1, ..., count - 1 for each count, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)

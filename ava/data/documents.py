"""Documents within a stream of tokens: where each begins, and how many targets it has.

A document of n tokens has n targets, each of its tokens once: the first is predicted from the separator before it (the
0 of `byte_stream`), the others from the token before. So the targets of the documents are those of the stream without
its separators, and figures per byte are comparable but for those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ava.data.sequences import Tokens, byte_stream

Integers = NDArray[np.int64]
_BLOCK = 1 << 22
"""Tokens looked through at a time."""


@dataclass(frozen=True, eq=False)
class Documents:
    """A stream and where its documents lie.

    Attributes:
        tokens: the stream.
        starts: (D,) the place of each document's first target in the stream, at least 1.
        lengths: (D,) targets of each, at least 1.
    """

    tokens: Tokens = field(repr=False)
    starts: Integers = field(repr=False)
    lengths: Integers = field(repr=False)


def of_bytes(documents: Sequence[bytes]) -> Documents:
    """Documents as one stream of bytes, a 0 before each; empty ones have nothing to predict and are left out."""
    lengths = np.array([len(document) for document in documents], dtype=np.int64)
    starts = np.cumsum(lengths + 1) - lengths
    return Documents(byte_stream(documents), starts[lengths > 0], lengths[lengths > 0])


def separated(tokens: Tokens, separator: int) -> Documents:
    """The documents of a stream in which a token stands between them (and before the first, or behind the last).

    The separator is the first input of what follows it and never a target; nor is the stream's own first token, as in
    `Sequences`. A stream without it is one document.
    """
    blocks = (np.arange(start, min(start + _BLOCK, len(tokens))) for start in range(0, len(tokens), _BLOCK))
    found = [block[np.asarray(tokens.take(block)) == separator] for block in blocks]
    places = np.concatenate([np.zeros(1, dtype=np.int64), *found])
    lengths = np.diff(places, append=len(tokens)) - 1
    return Documents(tokens, (places + 1)[lengths > 0], lengths[lengths > 0])

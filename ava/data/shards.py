"""Token files on disk as one stream, read through the page cache only where it is needed.

A shard is memory-mapped, so files may be larger than memory; the map is opened by whoever reads first and does not
travel to worker processes, which open their own.

Known layouts: `.npy` (one-dimensional, any integer type); `.bin` without a header, as nanoGPT writes it; and `.bin`
with the header of llm.c and modded-nanogpt, 256 int32 numbers that begin with a magic number, a version and the
number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ava.errors import InputError

_HEADER_BYTES = 256 * 4
_HEADERS = {(20240520, 1): "uint16", (20240801, 7): "uint32"}
"""(magic, version) -> the type of the tokens that follow."""
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Shard:
    """One file of tokens.

    Attributes:
        path: the file.
        dtype: numpy's name for the type of a token.
        offset: the bytes before the first token.
        size: the number of tokens.
    """

    path: Path
    dtype: str
    offset: int
    size: int

    @cached_property
    def tokens(self) -> np.ndarray:
        """(size,) the tokens, memory-mapped."""
        try:
            return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=(self.size,))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read: {error}.") from error

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "tokens"}


def open_shard(path: Path, dtype: str) -> Shard:
    """Describe a token file, without reading its tokens.

    Args:
        path: a `.bin` or `.npy` file.
        dtype: the type of the tokens of a `.bin` without a header.
    Raises:
        InputError: it cannot be read, is empty, or is no token file.
    """
    try:
        return _npy(path) if path.suffix == ".npy" else _bin(path, dtype)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def _npy(path: Path) -> Shard:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is no numpy array: {error}.", hint="Write it with numpy.save.") from error
    if not isinstance(array, np.memmap) or array.ndim != 1 or array.dtype.kind not in "iu":
        shape = getattr(array, "shape", None)
        raise InputError(
            f"{path} holds {getattr(array, 'dtype', type(array).__name__)} of shape {shape}.",
            hint="Tokens are a one-dimensional array of integers.",
        )
    return Shard(path, array.dtype.str, array.offset, len(array))


def _bin(path: Path, dtype: str) -> Shard:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = np.frombuffer(file.read(_HEADER_BYTES), dtype=np.uint8)
    if len(head) == _HEADER_BYTES:
        magic, version, count = (int(number) for number in head.view("<i4")[:3])
        known = _HEADERS.get((magic, version))
        if known is not None and size == _HEADER_BYTES + count * np.dtype(known).itemsize:
            return Shard(path, known, _HEADER_BYTES, count)
    count, rest = divmod(size, np.dtype(dtype).itemsize)
    if rest or not count:
        raise InputError(
            f"{path} has {size:,} bytes, which is no whole number of {dtype} tokens." if rest else f"{path} is empty.",
            hint="Choose data.dtype=uint16 or uint32 as it was written." if rest else None,
        )
    return Shard(path, dtype, 0, count)


@dataclass(frozen=True)
class ShardStream:
    """The tokens from `start` to `stop` of several shards, one after the other, as one stream.

    Attributes:
        shards: at least one, in order.
        start, stop: the window into all their tokens.
        vocab_size: what every token read must be below.
    """

    shards: tuple[Shard, ...]
    start: int
    stop: int
    vocab_size: int

    def __len__(self) -> int:
        return self.stop - self.start

    def take(self, indices: np.ndarray, /) -> np.ndarray:
        """The tokens at `indices`, which count from `start`: int64 of the same shape.

        Raises:
            InputError: one of them is not below `vocab_size`; names the file.
        """
        place = indices + self.start
        which = np.searchsorted(self._ends, place, side="right")
        tokens = np.empty(place.shape, dtype=np.int64)
        for k in np.unique(which):
            here = which == k
            tokens[here] = self.shards[k].tokens[place[here] - (self._ends[k] - self.shards[k].size)]
            check_range(tokens[here], self.vocab_size, self.shards[k].path)
        return tokens

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([shard.size for shard in self.shards])


def chunks(shard: Shard) -> Iterator[np.ndarray]:
    """The tokens of a shard from first to last, a few million at a time."""
    for start in range(0, shard.size, _CHUNK):
        yield shard.tokens[start : start + _CHUNK]


def check_range(tokens: np.ndarray, vocab_size: int | None, path: Path) -> int:
    """The largest of `tokens`.

    Raises:
        InputError: a token is negative, or not below `vocab_size`.
    """
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0:
        raise InputError(f"{path} holds the token {lowest}; tokens count from 0.")
    if vocab_size is not None and highest >= vocab_size:
        raise InputError(
            f"{path} holds the token {highest}, but data.vocab_size is {vocab_size}.",
            hint=f"Give data.vocab_size={highest + 1} or more, and check data.dtype.",
        )
    return highest

"""A user's own token shards: `.bin` and `.npy` files, of any size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ava.data.documents import separated
from ava.data.files import existing
from ava.data.packed import Packed, packed_splits
from ava.data.sequences import Sequences, splits
from ava.data.shards import Shard, ShardStream, check_range, chunks, open_shard
from ava.data.source import Data, TokenSpec
from ava.errors import InputError
from ava.registry import Fraction, Name, NonNegativeInt, PositiveInt, data

_SUFFIXES = (".bin", ".npy")
_VALID_NAMES = {"val", "valid", "validation"}
_CHECKED_AT_START = 1 << 28
"""Tokens whose range is checked before training when `vocab_size` is given; the others are as they are read."""


@data(kind="tokens")
def tokens(
    seed: int,
    /,
    path: Name | None = None,
    dtype: Literal["uint16", "uint32"] = "uint16",
    vocab_size: PositiveInt | None = None,
    context: PositiveInt = 256,
    valid_fraction: Fraction = 0.05,
    separator: NonNegativeInt | None = None,
) -> Data:
    """Your own token shards: `.bin` (uint16 or uint32) or `.npy`, memory-mapped, of any size.

    Files with `val`, `valid` or `validation` as a word of their name (`val.bin`, `fineweb_val_000000.bin`) are for
    validation and the others for training; without such files the last `valid_fraction` of all tokens is.

    Args:
        seed: the run's seed; keys where the training stream is cut in each epoch.
        path: a file, or a folder whose `.bin` and `.npy` files are taken in the order of their names.
        dtype: the type of a token in a `.bin` without a header; a header and `.npy` say it themselves.
        vocab_size: tokens are below it; null finds it as the largest token + 1, which reads all files once.
        context: T, the tokens in a sequence.
        valid_fraction: the share for validation where no file is named for it.
        separator: the token between documents: they are packed whole into sequences in which none sees another, and
            the separator is no target. It reads all files once. Null cuts one stream, whatever is in it.
    Returns:
        Sequences of tokens.
    Raises:
        InputError: `path` is missing or holds no token file, a file is none, a token is not below `vocab_size`,
            there are too few tokens for `context`, or `separator` separates nothing.
    """
    root = existing(path)
    shards = [open_shard(file, dtype) for file in _token_files(root)]
    size = _vocab_size(shards, vocab_size)
    train, valid = _split(shards, valid_fraction, size)
    train_split, valid_split = _cut(train, valid, context, seed, size, separator)
    return Data(
        train=train_split,
        valid=valid_split,
        spec=TokenSpec(vocab_size=size, context=context),
        description=f"{root}: {len(shards)} token files, {len(train):,} tokens for training, "
        f"{len(valid):,} for validation, vocabulary of {size:,}{_padding(train_split)}",
    )


def _token_files(root: Path) -> list[Path]:
    files = sorted(f for f in root.iterdir() if f.suffix in _SUFFIXES) if root.is_dir() else [root]
    if not files or files[0].suffix not in _SUFFIXES:
        raise InputError(
            f"{root} is no token file." if files else f"no token files in {root}.",
            hint="They end in .bin or .npy; for plain text use data=text.",
        )
    return files


def _vocab_size(shards: Sequence[Shard], given: int | None) -> int:
    """The number of different tokens, given or found; checks the tokens it reads."""
    highest, seen = 0, 0
    for shard in shards:
        for chunk in chunks(shard):
            if given is not None and seen >= _CHECKED_AT_START:
                return given
            highest = max(highest, check_range(chunk, given, shard.path))
            seen += len(chunk)
    return highest + 1 if given is None else given


def _split(shards: Sequence[Shard], valid_fraction: float, vocab_size: int) -> tuple[ShardStream, ShardStream]:
    """The streams for training and validation: by the files' names, else by place."""
    named = [not _VALID_NAMES.isdisjoint(re.split(r"[^a-z]+", shard.path.stem.lower())) for shard in shards]
    if len(shards) == 1 or not any(named):
        total = sum(shard.size for shard in shards)
        cut = total - round(total * valid_fraction)
        everything = tuple(shards)
        return ShardStream(everything, 0, cut, vocab_size), ShardStream(everything, cut, total, vocab_size)
    train, valid = (tuple(s for s, n in zip(shards, named, strict=True) if n is side) for side in (False, True))
    if not train:
        raise InputError(
            f"every token file in {shards[0].path.parent} is named for validation.", hint="Name one train.bin."
        )
    return (
        ShardStream(train, 0, sum(shard.size for shard in train), vocab_size),
        ShardStream(valid, 0, sum(shard.size for shard in valid), vocab_size),
    )


def _cut(
    train: ShardStream, valid: ShardStream, context: int, seed: int, vocab_size: int, separator: int | None
) -> tuple[Sequences, Sequences] | tuple[Packed, Packed]:  # fmt: skip
    """Sequences of the streams, or of the documents in them."""
    if separator is None:
        return splits(train, valid, context, seed)
    if separator >= vocab_size:
        problem = f"must be a token, below vocab_size={vocab_size}."
        raise InputError(problem, key="data.separator", value=separator)
    documents = separated(train, separator)
    if len(documents.lengths) == 1:
        raise InputError(
            "separates nothing in the training split.", key="data.separator", value=separator,
            hint="Give the token that ends or begins your documents, or null.",
        )  # fmt: skip
    return packed_splits(documents, separated(valid, separator), context, seed)


def _padding(train: Sequences | Packed) -> str:
    return f", documents packed, {100 * train.padding:.1f} % padding" if isinstance(train, Packed) else ""

"""A user's own text, as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ava.data.files import existing, held_out, matching, read_bytes
from ava.data.packed import text_splits, told
from ava.data.source import Data, TokenSpec
from ava.errors import InputError
from ava.registry import Fraction, Name, PositiveInt, data


@data(kind="tokens")
def text(
    seed: int,
    /,
    path: Name | None = None,
    pattern: Name = "**/*.txt",
    context: PositiveInt = 256,
    valid_fraction: Fraction = 0.05,
    packing: Literal["stream", "documents"] = "stream",
) -> Data:
    """Your own text file, or a folder of them, read as bytes.

    Several files are split by file: a file is for validation if a hash of its relative path falls into
    `valid_fraction`, at least one file on each side. Of a single file the last `valid_fraction` is for validation.
    Any encoding will do, for the model sees bytes; the files are held in memory (for more, see data=tokens).

    Args:
        seed: the run's seed; keys where the training text is cut in each epoch.
        path: the file or folder.
        pattern: which files of a folder are read; `**/` looks into the folders below it.
        context: T, the bytes in a sequence.
        valid_fraction: the share for validation.
        packing: "stream" cuts all files, joined, into sequences; "documents" packs whole files into sequences in which
            none sees another, and which cut only files longer than `context`.
    Returns:
        Sequences of bytes, vocab_size 256.
    Raises:
        InputError: `path` is missing, unreadable or empty, or its text is too short for `context`.
    """
    root = existing(path)
    files = matching(root, pattern) if root.is_dir() else [root]
    documents = {file: content for file in files if (content := read_bytes(file))}
    if not documents:
        raise InputError(f"{root} is empty." if root.is_file() else f"all files of {root} that match are empty.")
    train, valid = _split(root, documents, valid_fraction)
    train_split, valid_split = text_splits(train, valid, context, seed, packing)
    return Data(
        train=train_split,
        valid=valid_split,
        spec=TokenSpec(vocab_size=256, context=context, unit="byte"),
        description=f"{root}: {len(documents):,} files, {told(train_split, valid_split, 'bytes')}",
    )


def _split(root: Path, documents: dict[Path, bytes], valid_fraction: float) -> tuple[list[bytes], list[bytes]]:
    """The documents for training and validation."""
    if len(documents) == 1:
        (content,) = documents.values()
        cut = len(content) - round(len(content) * valid_fraction)
        return [content[:cut]], [content[cut:]]
    held = held_out([file.relative_to(root).as_posix() for file in documents], valid_fraction)
    train = [d for d, h in zip(documents.values(), held, strict=True) if not h]
    return train, [d for d, h in zip(documents.values(), held, strict=True) if h]

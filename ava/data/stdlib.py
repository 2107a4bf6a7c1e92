"""The source text of the running Python's standard library: tens of MB of real text without a download."""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ava.data.files import held_out, read_bytes
from ava.data.packed import text_splits, told
from ava.data.source import Data, TokenSpec
from ava.errors import InputError
from ava.registry import PositiveInt, data

_INSTALLED = {"site-packages", "dist-packages"}
_TESTS = {"test", "tests", "idle_test"}
_VALID_FRACTION = 1 / 20


@data(kind="tokens")
def stdlib(
    seed: int,
    /,
    context: PositiveInt = 256,
    tests: bool = False,
    packing: Literal["stream", "documents"] = "stream",
) -> Data:
    """The source text of Python's own standard library as bytes; no download.

    One file in twenty, chosen by a hash of its relative path, is for validation. The text is what this Python
    brings, so figures compare between machines only where version and digest (see the description) agree.
    The files of a split, sorted by path and joined by single 0 bytes, are its text: every byte of the validation
    text is a target exactly once (`ava.data.sequences` says precisely how).

    Args:
        seed: the run's seed; keys where the training text is cut in each epoch.
        context: T, the bytes in a sequence.
        tests: whether the library's own tests are taken too, nearly three times as much text.
        packing: "stream" cuts all files, joined, into sequences; "documents" packs whole files into sequences in which
            none sees another, and which cut only files longer than `context`.
    Returns:
        Sequences of bytes, vocab_size 256.
    Raises:
        InputError: this Python has no standard library in source form, or too little of it for `context`.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(_names(root, tests))
    if len(names) < 2:
        raise InputError(
            f"this Python has no standard library in source form in {root}.", hint="Use data=text path=FILE_OR_FOLDER."
        )
    documents = [read_bytes(root / name) for name in names]
    held = held_out(names, _VALID_FRACTION)
    train, valid = ([d for d, h in zip(documents, held, strict=True) if h is side] for side in (False, True))
    train_split, valid_split = text_splits(train, valid, context, seed, packing)
    return Data(
        train=train_split,
        valid=valid_split,
        spec=TokenSpec(vocab_size=256, context=context, unit="byte"),
        description=f"standard library of Python {platform.python_version()}: {len(names):,} files, "
        f"{told(train_split, valid_split, 'bytes')}, digest {_digest(names, documents)}",
    )


def _names(root: Path, tests: bool) -> Iterator[str]:
    """The relative paths of the library's own source files, with `/` on every system."""
    skipped = _INSTALLED if tests else _INSTALLED | _TESTS
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped]
        for name in files:
            if name.endswith(".py"):
                yield Path(folder, name).relative_to(root).as_posix()


def _digest(names: list[str], documents: list[bytes]) -> str:
    """A short fingerprint of all names and contents."""
    digest = hashlib.blake2b(digest_size=8)
    for name, document in zip(names, documents, strict=True):
        digest.update(f"{name}\0{len(document)}\0".encode())
        digest.update(document)
    return digest.hexdigest()

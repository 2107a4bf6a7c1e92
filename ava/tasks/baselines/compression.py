"""What general compressors make of the validation text: they see all of it, but nothing of the training text."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable

import numpy as np

from ava.data.source import Data
from ava.tasks.baselines.gather import counted_targets
from ava.tasks.task import Baseline

_LIMIT = 1 << 23
"""Bytes compressed at most: xz takes about a second for three million."""

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip -9": lambda text: gzip.compress(text, 9, mtime=0),
    "bzip2 -9": lambda text: bz2.compress(text, 9),
    "xz -9": lambda text: lzma.compress(text, preset=9),
}


def compressors(data: Data) -> list[Baseline]:
    """The bits per byte of gzip, bzip2 and xz at their highest level, headers included.

    Their input is the targets of the validation split that count, in order: exactly the bytes over which
    `eval/bits_per_byte` is a mean. Of more than 8,388,608 bytes only the first are taken, and the name says so.

    Args:
        data: sequences of bytes.
    """
    targets, is_all = counted_targets(data.valid, _LIMIT)
    text = targets.astype(np.uint8).tobytes()
    suffix = "" if is_all else f" (first {_LIMIT:,} bytes)"
    return [
        Baseline(name + suffix, "eval/bits_per_byte", 8 * len(compress(text)) / len(text))
        for name, compress in _COMPRESSORS.items()
    ]

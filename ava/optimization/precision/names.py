"""Names of layers, for people."""

from __future__ import annotations

import collections
import re
from collections.abc import Sequence


def grouped(names: Sequence[str]) -> list[str]:
    """Names that differ in numbers only become one: `blocks.0.up` and `blocks.1.up` are `blocks.*.up`."""
    patterns = [re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names]
    counts = collections.Counter(patterns)
    return list(dict.fromkeys(p if counts[p] > 1 else name for p, name in zip(patterns, names, strict=True)))

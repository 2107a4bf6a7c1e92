"""Measure on one thread, print the table, and write JSON where asked: what the benches of costs have in common."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ava.bench import machine
from ava.bench.tables import show


def report(
    rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], words: Collection[str], path: Path | None = None
) -> int:  # fmt: skip
    """Carry out a measurement.

    Args:
        rows: measured as they are asked for, which happens on one thread.
        columns: as of `tables.show`; so are `words`.
        words: keys of columns.
        path: of a file for the figures; None writes none.

    Returns:
        The exit code.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured, described = list(rows), machine.describe()
    finally:
        torch.set_num_threads(threads)
    show(described, columns, words, measured)
    if path is not None:
        path.write_text(json.dumps({"machine": described, "rows": measured}, indent=2), encoding="utf-8")
    return 0

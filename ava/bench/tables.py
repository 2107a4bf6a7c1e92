"""Measurements as a table on the screen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(title: str, columns: Mapping[str, str], words: Collection[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows.

    Args:
        title: stands above.
        columns: key of a row -> its heading.
        words: keys whose values are words, which stand on the left and are not cut; numbers stand on the right.
        rows: None leaves a cell empty.
    """
    table = Table(title=title, title_justify="left")
    for key, heading in columns.items():
        table.add_column(heading, no_wrap=key in words, justify="left" if key in words else "right")
    for row in rows:
        table.add_row(*("" if row[key] is None else str(row[key]) for key in columns))
    console().print(table)


def console() -> Console:
    """The screen; a file has no width to fit."""
    found = Console()
    return found if found.is_terminal else Console(width=160)

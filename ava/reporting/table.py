"""Results of several runs as a table: on the screen, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from ava.checkpoint import atomic
from ava.reporting import layout

Row = dict[str, Any]


def best_first(rows: Sequence[Row], metric: str, mode: Literal["min", "max"]) -> list[Row]:
    """The rows in order of a metric; those without it, or with NaN, come last in their old order.

    Args:
        rows: one dict per run.
        metric: the column that decides.
        mode: whether small or large values are better.
    """
    sign = 1 if mode == "min" else -1

    def rank(row: Row) -> tuple[bool, float]:
        value = row.get(metric)
        if not isinstance(value, int | float) or math.isnan(value):
            return True, 0.0
        return False, sign * value

    return sorted(rows, key=rank)


def columns(rows: Sequence[Row]) -> list[str]:
    """Every column that any row has, in order of appearance."""
    return list(dict.fromkeys(name for row in rows for name in row))


def print_table(rows: Sequence[Row], console: Console | None = None, title: str | None = None) -> None:
    """Show the rows on a console.

    Args:
        rows: one dict per run; a missing or None value is left empty.
        console: where to write; by default standard output.
        title: stands above the table.
    """
    table = Table(title=title, title_justify="left")
    names = columns(rows)
    for name in names:
        is_numeric = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(name, justify="right" if is_numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    (console or Console()).print(table, markup=False)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the rows with full precision; the file appears, or is replaced, in one step.

    Args:
        rows: one dict per run; a missing or None value is left empty.
        path: the CSV file; its folder exists.

    Raises:
        OSError: the disk refused.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(rows), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(path, text.getvalue())


def _cell(value: Any) -> str:
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        return layout.number(value)
    return "" if value is None else str(value)

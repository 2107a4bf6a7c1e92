"""The curves of a schedule, as plain numbers: what is drawn, tabulated and written as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.ticker import MaxNLocator

from ava.checkpoint import atomic


@dataclass(frozen=True)
class Curve:
    """What some param groups do with one hyperparameter.

    Attributes:
        label: which groups, in words.
        values: at each of the drawing's steps.
        lowest: the first step with the smallest value, and that value.
        highest: the first step with the largest value, and that value.
    """

    label: str
    values: list[float]
    lowest: tuple[int, float]
    highest: tuple[int, float]


@dataclass(frozen=True)
class Panel:
    """One hyperparameter.

    Attributes:
        name: `lr`, `momentum`, ...
        curves: at most a handful.
        left_out: how many more there are.
    """

    name: str
    curves: list[Curve]
    left_out: int = 0


@dataclass(frozen=True)
class Span:
    """Steps without another phase between them.

    Attributes:
        phase: "warmup", "main" or "cooldown".
        first: its first optimizer step, counted from 1.
        last: its last one.
    """

    phase: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"step {self.first:,}" if self.first == self.last else f"steps {self.first:,} to {self.last:,}"


@dataclass(frozen=True)
class Drawing:
    """A schedule over a whole training.

    Attributes:
        title: what is drawn.
        total_steps: optimizer steps of the training.
        total_from: what the total comes from.
        steps: the steps that are drawn, counted from 1, rising; the first and the last are among them.
        panels: one for each hyperparameter that moves, `lr` first.
        spans: the phases in order; together they are the whole training.
        notes: sentences on what the curves do not show.
    """

    title: str
    total_steps: int
    total_from: str
    steps: list[int]
    panels: list[Panel]
    spans: list[Span]
    notes: list[str]


def letters(panels: list[Panel]) -> list[list[str]]:
    """A letter for every curve, the same in plots and tables; none where a panel has one curve alone."""
    alphabet = iter("abcdefghijklmnopqrstuvwxyz" + "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return [[next(alphabet, "*") if len(panel.curves) > 1 else "" for _ in panel.curves] for panel in panels]


def limits(panel: Panel) -> tuple[float, float]:
    """The ends of the vertical axis: 0 is on it, unless all values keep far from there."""
    low, high = min(c.lowest[1] for c in panel.curves), max(c.highest[1] for c in panel.curves)
    if low == high:
        return (0.0, 1.25 * high) if high > 0 else (-1.0, 1.0)
    bottom = 0.0 if 0 <= low < high / 2 else low - 0.06 * (high - low)
    return bottom, high + 0.06 * (high - bottom)


def step_ticks(total_steps: int, room: float) -> list[int]:
    """The first and the last step, and round ones between them.

    Args:
        total_steps: the last step.
        room: what an end's number takes up, as a share of the axis.
    """
    if total_steps == 1:
        return [1]
    between = MaxNLocator(6, integer=True).tick_values(1, total_steps)
    taken = room * total_steps
    return [1, *(int(step) for step in between if 1 + taken < step < total_steps - taken), total_steps]


def write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write rows with the same keys as they come, with full precision; the file appears, or is replaced, in one step.

    Args:
        rows: one for each step; None is left empty.
        path: the CSV file; its folder exists.

    Raises:
        OSError: the disk refused.
    """
    atomic.write_lines(path, _csv_lines(rows))


def _csv_lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")
    for number, row in enumerate(rows):
        if number == 0:
            writer.writerow(row)
        writer.writerow(row.values())
        yield line.getvalue().encode()
        line.seek(0)
        line.truncate()

"""A schedule in a terminal: braille curves, and the numbers that one wants to know exactly."""

from __future__ import annotations

import math

import plotext as plt
from matplotlib.ticker import MaxNLocator
from rich import box
from rich.table import Table

from ava.reporting.schedule_curves import Curve, Drawing, Panel, letters, limits, step_ticks

_COLOURS = ("cyan", "orange", "green", "magenta", "red", "blue")
_HEIGHT, _SMALL_HEIGHT, _LEAST_WIDTH = 17, 10, 50


def plot_text(drawing: Drawing, width: int, *, colour: bool) -> str:
    """Draw every panel, one below the other.

    Args:
        drawing: what to draw.
        width: of the terminal, in columns; 50 at least are used.
        colour: whether the curves have colours (ANSI codes); otherwise there are no codes at all.

    Returns:
        Lines of at most `width` columns, each ended by a newline; empty if nothing moves.
    """
    ticks = [_vertical_ticks(panel) for panel in drawing.panels]
    margin = max((len(label) for _, labels in ticks for label in labels), default=0)
    texts = [
        _panel_text(drawing, number, values, [label.rjust(margin) for label in labels], max(width, _LEAST_WIDTH))
        for number, (values, labels) in enumerate(ticks)
    ]
    text = "".join(texts)
    return text if colour else "".join(line.rstrip() + "\n" for line in plt.uncolorize(text).splitlines())


def _panel_text(drawing: Drawing, number: int, ticks: list[float], labels: list[str], width: int) -> str:
    """One panel; plotext has one figure for all, which is cleared before and after."""
    panel, marks = drawing.panels[number], letters(drawing.panels)[number]
    bottom, top = limits(panel)
    plt.clear_figure()
    plt.theme("clear")
    plt.limit_size(False, False)
    plt.plot_size(width, _SMALL_HEIGHT if number else _HEIGHT)
    plt.xlim(1, max(drawing.total_steps, 2))
    plt.ylim(bottom, top)
    for i, curve in enumerate(panel.curves):
        known = [(step, value) for step, value in zip(drawing.steps, curve.values, strict=True) if value == value]
        plt.plot(*map(list, zip(*known, strict=True)), marker="braille", color=_COLOURS[i % len(_COLOURS)])
    for i, curve in enumerate(panel.curves):
        at = len(drawing.steps) * (i + 1) // (len(panel.curves) + 1)
        plt.text(marks[i], drawing.steps[at], curve.values[at], color=_COLOURS[i % len(_COLOURS)])
    for span in drawing.spans[1:] if len(drawing.spans) <= 3 else ():
        plt.vertical_line(span.first)
    plt.yticks(ticks, labels)
    places = step_ticks(drawing.total_steps, (len(f"{drawing.total_steps:,}") + 2) / width)
    plt.xticks(places, [f"{place:,}" for place in places])
    plt.title(panel.name)
    text: str = plt.build()
    plt.clear_figure()
    return text if text.endswith("\n") else text + "\n"


def _vertical_ticks(panel: Panel) -> tuple[list[float], list[str]]:
    bottom, top = limits(panel)
    locator = MaxNLocator(4 if panel.name == "lr" else 2, steps=[1, 2, 2.5, 5, 10])
    values = [float(v) for v in locator.tick_values(bottom, top) if bottom <= v <= top]
    largest = max(map(abs, values), default=0.0)
    if largest == 0 or 1e-3 <= largest < 1e5:
        return values, [f"{value:.4g}" for value in values]
    exponent = math.floor(math.log10(largest))
    return values, [f"{value / 10**exponent:.3g}e{exponent}" if value else "0" for value in values]


def phase_table(drawing: Drawing) -> Table:
    """The total and where it comes from, and the phases."""
    table = Table.grid(padding=(0, 2))
    table.add_row("total", f"{drawing.total_steps:,} step{'s' * (drawing.total_steps > 1)} ({drawing.total_from})")
    for phase in dict.fromkeys(span.phase for span in drawing.spans):
        spans = [span for span in drawing.spans if span.phase == phase]
        others = f", and {len(spans) - 1:,} times more" if len(spans) > 1 else ""
        table.add_row(phase, f"{spans[0]}{others}")
    return table


def curve_table(drawing: Drawing) -> Table:
    """First, lowest, highest and last value of each curve, and the steps of the two in the middle."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("", "", "param groups"):
        table.add_column(name, overflow="fold", no_wrap=name == "")
    for name in ("first", "lowest", "at", "highest", "at", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for panel, marks in zip(drawing.panels, letters(drawing.panels), strict=True):
        for curve, mark in zip(panel.curves, marks, strict=True):
            table.add_row(mark, panel.name, curve.label, *_numbers(curve))
        if panel.left_out:
            table.add_row("", panel.name, f"and {panel.left_out:,} more, not drawn", *[""] * 6)
    return table


def _numbers(curve: Curve) -> list[str]:
    extremes = [text for step, value in (curve.lowest, curve.highest) for text in (_short(value), f"{step:,}")]
    return [_short(curve.values[0]), *extremes, _short(curve.values[-1])]


def _short(value: float) -> str:
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")

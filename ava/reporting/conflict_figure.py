"""Conflicts as a picture."""

from __future__ import annotations

import itertools
import math
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ava.checkpoint import atomic
from ava.reporting.conflicts import Conflicts

_COLOURS = ("#1f5f8b", "#d1495b", "#2e8b57", "#8a5bb5", "#e08e27", "#17a2a2", "#a0522d", "#5b6770")
_PALE, _BLANK = "#c8ccd0", "#e9ebed"
_DOTS_PER_INCH = 150
_NAMED_PAIRS = 6
"""Pairs that have a colour of their own and a name: those most in conflict. More could not be told apart."""
_LONGEST = 14
"""Characters of a name."""


def write(conflicts: Conflicts, path: Path) -> None:
    """Draw the picture; the file appears, or is replaced, in one step.

    Args:
        conflicts: of at least one objective and one row.
        path: of the picture, a PNG; its folder exists.

    Raises:
        OSError: the disk refused.
    """
    content = BytesIO()
    figure(conflicts).savefig(content, format="png", dpi=_DOTS_PER_INCH)
    atomic.write_lines(path, [content.getvalue()])


def figure(conflicts: Conflicts) -> Figure:
    """The picture: on the left the mean cosine of each pair, on the right cosines over steps and, below, weights."""
    panels = [draw for draw, values in ((_cosines, conflicts.cosines), (_weights, conflicts.weights)) if values]
    side = min(3.2 + 0.35 * len(conflicts.names), 6.5)
    made = Figure(figsize=(side + 6.8, max(side - 0.2, 2.4 * len(panels) + 0.6)), layout="constrained")
    grid = made.add_gridspec(len(panels), 2, width_ratios=[side, 6.5])
    _heatmap(made.add_subplot(grid[:, 0]), conflicts)
    first: Axes | None = None
    for place, draw in enumerate(panels):
        axes = made.add_subplot(grid[place, 1], sharex=first)
        first = first or axes
        draw(axes, conflicts)
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelbottom=place == len(panels) - 1)
    made.axes[-1].set_xlabel("optimizer step")
    return made


def _heatmap(axes: Axes, conflicts: Conflicts) -> None:
    names, count = conflicts.names, len(conflicts.names)
    table = np.full((count, count), math.nan)
    for pair in conflicts.cosines:
        if pair[1] in names:
            row, column = names.index(pair[0]), names.index(pair[1])
            table[row, column] = table[column, row] = conflicts.mean(pair)
    image = axes.imshow(np.ma.masked_invalid(table), cmap="RdBu", vmin=-1, vmax=1)
    axes.set_facecolor(_BLANK)
    axes.tick_params(length=0)
    for row, column in itertools.product(range(count), repeat=2):
        value = table[row, column]
        if math.isfinite(value):
            colour = "white" if abs(value) > 0.6 else "black"
            axes.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", fontsize=8, color=colour)
    short = [_short(name) for name in names]
    axes.set_xticks(range(count), short, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(count), short, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.set_title("mean cosine of gradients", fontsize=10)
    axes.figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)


def _cosines(axes: Axes, conflicts: Conflicts) -> None:
    means = {pair: conflicts.mean(pair) for pair in conflicts.cosines}
    ordered = sorted(means, key=lambda pair: means[pair] if math.isfinite(means[pair]) else math.inf)
    named, others = ordered[:_NAMED_PAIRS], ordered[_NAMED_PAIRS:]
    for place, pair in enumerate(others):
        label = f"{len(others)} others" if place == 0 else None
        _line(axes, conflicts.steps, conflicts.cosines[pair], _PALE, label)
    for pair, colour in zip(named, _COLOURS, strict=False):
        _line(axes, conflicts.steps, conflicts.cosines[pair], colour, f"{_short(pair[0])}, {_short(pair[1])}")
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylim(-1.05, 1.05)
    axes.set_ylabel("cosine")


def _weights(axes: Axes, conflicts: Conflicts) -> None:
    for (name, values), colour in zip(conflicts.weights.items(), itertools.cycle(_COLOURS), strict=False):
        _line(axes, conflicts.steps, values, colour, _short(name))
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("weight")


def _line(axes: Axes, steps: list[float], values: list[float], colour: str, label: str | None) -> None:
    marker = "o" if len(steps) == 1 else None
    axes.plot(steps, values, color=colour, linewidth=1.2, marker=marker, label=label)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"

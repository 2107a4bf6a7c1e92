"""The ways down the landscapes, as pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ava.bench.landscape_descent import Descent
from ava.bench.landscape_problems import VALLEY, Landscape, pareto_height

_COLOURS = ("#d1495b", "#1f5f8b", "#e08e27", "#8a5bb5", "#17a2a2")
_GRID = 121
_COLUMNS = 3
_SIDE = 3.4
_WINDOW, _WINDOW_OF_VALLEY = ((-11.0, 11.0), (-11.0, 11.0)), ((-6.0, 5.0), (-4.0, 7.0))


def write(
    results: Mapping[str, Mapping[str, list[Descent]]], landscapes: Mapping[str, Landscape], path: Path
) -> list[Path]:
    """Draw one picture a landscape: a panel for each method, the sum of the losses as contours, a line a start.

    Args:
        results: landscape -> method -> one descent for each start.
        landscapes: by name.
        path: of the first picture; that of a further one has the landscape's number added.

    Returns:
        What was written.
    """
    written = []
    for number, (name, of_methods) in enumerate(results.items(), 1):
        target = path if number == 1 else path.with_stem(f"{path.stem}_{number}")
        figure(landscapes[name], of_methods).savefig(target, format="png", dpi=130)
        written.append(target)
    return written


def figure(landscape: Landscape, of_methods: Mapping[str, list[Descent]]) -> Figure:
    """The picture of one landscape, not yet written."""
    columns = min(_COLUMNS if len(of_methods) > 4 else 2, len(of_methods))
    rows = math.ceil(len(of_methods) / columns)
    made = Figure(figsize=(_SIDE * columns + 0.4, _SIDE * rows + 0.6), layout="constrained")
    made.suptitle(f"{landscape.name}: contours of L1 + L2; o start, x end", fontsize=10)
    grid = made.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    window = _WINDOW_OF_VALLEY if landscape == VALLEY else _WINDOW
    surface = _surface(landscape, window)
    for axes, (method, descents) in zip(grid.flat, of_methods.items(), strict=False):
        axes.contour(*surface, levels=14, cmap="Greys", linewidths=0.6, alpha=0.7)
        if landscape != VALLEY:
            across = np.linspace(-7, 7, 50)
            axes.plot(across, [pareto_height(float(x)) for x in across], color="#2e8b57", linewidth=4, alpha=0.5)
        _draw(axes, descents)
        axes.set(xlim=window[0], ylim=window[1], aspect="equal")
        axes.set_title(f"{method}: {sum(d.has_arrived for d in descents)} of {len(descents)}", fontsize=9)
    for axes in grid.flat[len(of_methods) :]:
        axes.set_visible(False)
    return made


def _surface(landscape: Landscape, window: tuple[tuple[float, float], ...]) -> tuple[np.ndarray, ...]:
    x, y = (np.linspace(low, high, _GRID) for low, high in window)
    return x, y, np.array([[sum(landscape.evaluate((float(a), float(b))).losses) for a in x] for b in y])


def _draw(axes: Axes, descents: list[Descent]) -> None:
    for descent, colour in zip(descents, _COLOURS, strict=False):
        x, y = zip(*descent.path, strict=True)
        axes.plot(x, y, color=colour, linewidth=1.3)
        axes.plot(*descent.start, marker="o", color=colour, markersize=5)
        axes.plot(*descent.end, marker="x", color=colour, markersize=8, markeredgewidth=2)

"""The flow of gradients as a picture: a row per layer, steps from left to right, and beside it the last profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from numpy.typing import NDArray

from ava.checkpoint import atomic

_WIDTH, _FRAME, _DOTS_PER_INCH = 11.0, 1.35, 130  # inches, and dots per inch
_ROW, _NARROW_ROW, _SMALLEST = 0.19, 0.14, 1.6  # heights of a row, of one among many, and of a panel, in inches
_MANY, _MOST_LABELS = 40, 200
_LONGEST_NAME = 34
_MOST_COLUMNS = 400
_USUAL = (1e-4, 1e-2)
_NOT_FINITE, _UNKNOWN, _INK = "#d1495b", "#eceff3", "#1f5f8b"
_DECADES = 6
_COLOURS = colormaps["viridis"].with_extremes(bad=_UNKNOWN)
_RED = ListedColormap([_NOT_FINITE])


@dataclass(frozen=True)
class Panel:
    """One quantity of all layers over steps.

    Attributes:
        title: what it is.
        names: (N,) of the layers, in the order of the model.
        values: (N, S), nan where a step said nothing, inf where it was not finite.
        profile_title: what stands beside it.
        profile: (N,) of the last step, nan where nothing is known.
        is_share: whether the values are shares, 0 to 1, rather than norms.
    """

    title: str
    names: list[str]
    values: NDArray[np.float64]
    profile_title: str
    profile: NDArray[np.float64]
    is_share: bool


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the rows of health.jsonl into a PNG; the file appears, or is replaced, in one step.

    Args:
        rows: at least one; see `ava/reporting/gradient_flow.py`. Numbers that are not finite may be texts.
        path: ends in `.png`; the folder exists.

    Raises:
        OSError: the disk refused.
    """
    content = BytesIO()
    figure(rows).savefig(content, format="png", dpi=_DOTS_PER_INCH)
    atomic.write_lines(path, [content.getvalue()])


def figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """The picture, not yet written; of more than 400 rows, 400 from the first to the last."""
    rows = _thinned(rows)
    panels = [panel for panel in (_gradients(rows), _dead_units(rows)) if panel.names]
    heights = [_height(len(panel.names)) for panel in panels]
    made = Figure(figsize=(_WIDTH, sum(heights) + _FRAME * max(len(panels), 1)), layout="constrained")
    made.suptitle(_headline(rows), fontsize=11)
    if not panels:
        made.text(0.5, 0.5, "No layer was measured.", ha="center", va="center")
        return made
    grid = made.add_gridspec(len(panels), 1, height_ratios=heights)
    steps = [int(row["step"]) for row in rows]
    for row, panel in enumerate(panels):
        _draw(made, grid[row, 0], panel, steps)
    return made


def _height(count: int) -> float:
    """Inches for so many rows; beyond the number of labels that there is room for, rows get thinner."""
    return max(_SMALLEST, (_ROW if count <= _MANY else _NARROW_ROW) * min(count, _MOST_LABELS))


def _thinned(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    if len(rows) <= _MOST_COLUMNS:
        return rows
    return [rows[round(index)] for index in np.linspace(0, len(rows) - 1, _MOST_COLUMNS)]


def _headline(rows: Sequence[dict[str, Any]]) -> str:
    noise = _number(rows[-1].get("noise_scale"))
    told = f"; gradient noise scale {noise:,.0f} samples" if math.isfinite(noise) else ""
    return f"Gradient flow up to step {int(rows[-1]['step']):,}{told}"


def _gradients(rows: Sequence[dict[str, Any]]) -> Panel:
    names, values = _table(rows, "layers", "grad_norm")
    _, ratios = _table(rows[-1:], "layers", "update_ratio", names)
    title = f"update / weight at step {int(rows[-1]['step']):,}"
    return Panel("gradient norm", names, values, title, ratios[:, 0], is_share=False)


def _dead_units(rows: Sequence[dict[str, Any]]) -> Panel:
    names, values = _table(rows, "activations", "dead")
    title = f"dead at step {int(rows[-1]['step']):,}"
    return Panel("share of dead units", names, values, title, values[:, -1], is_share=True)


def _table(
    rows: Sequence[dict[str, Any]], part: str, key: str, names: list[str] | None = None
) -> tuple[list[str], NDArray[np.float64]]:
    """All names in the order they came up, and (N, S) values."""
    if names is None:
        names = list(dict.fromkeys(name for row in rows for name in row.get(part) or {}))
    values = [[_number((row.get(part) or {}).get(name, {}).get(key)) for row in rows] for name in names]
    return names, np.array(values, dtype=float).reshape(len(names), len(rows))


def _number(value: Any) -> float:
    """Nan for what is not known; a NaN that was measured becomes infinity, as both are drawn as not finite."""
    if value is None:
        return math.nan
    number = float(value)
    return number if math.isfinite(number) else math.inf


def _draw(made: Figure, place: SubplotSpec, panel: Panel, steps: list[int]) -> None:
    grid = place.subgridspec(1, 2, width_ratios=[2.6, 1])
    heat = made.add_subplot(grid[0])
    profile = made.add_subplot(grid[1], sharey=heat)
    _draw_heat(made, heat, panel, steps)
    (_draw_shares if panel.is_share else _draw_ratios)(profile, panel)
    profile.set_title(panel.profile_title, fontsize=9)
    profile.tick_params(labelleft=False, left=False, labelsize=7)
    profile.spines[["top", "right"]].set_visible(False)
    labelled = range(0, len(panel.names), math.ceil(len(panel.names) / _MOST_LABELS))
    heat.set_yticks(labelled, [_short(panel.names[row]) for row in labelled])
    heat.tick_params(axis="y", labelsize=7 if len(panel.names) <= _MANY else 6, length=0)
    heat.set_ylim(len(panel.names) - 0.5, -0.5)


def _draw_heat(made: Figure, axes: Axes, panel: Panel, steps: list[int]) -> None:
    known = np.ma.masked_invalid(_drawable(panel))
    image = axes.imshow(known, aspect="auto", interpolation="nearest", cmap=_COLOURS, norm=_scale(panel))
    wrong = np.isinf(panel.values)
    axes.imshow(np.ma.masked_where(~wrong, wrong), aspect="auto", interpolation="nearest", cmap=_RED)
    ticks = sorted({round(place) for place in np.linspace(0, len(steps) - 1, min(7, len(steps)))})
    axes.set_xticks(ticks, [f"{steps[tick]:,}" for tick in ticks], fontsize=7)
    axes.set_xlabel("optimizer step", fontsize=8)
    notes = ["red: not finite"] * bool(wrong.any()) + ["grey: not known"] * bool(np.isnan(panel.values).any())
    axes.set_title("; ".join([panel.title, *notes]), fontsize=9)
    bar = made.colorbar(
        image, ax=axes, location="right", pad=0.01, fraction=0.03, aspect=25, shrink=_shrunk(panel), anchor=(0.0, 1.0)
    )
    bar.ax.tick_params(labelsize=7)


def _shrunk(panel: Panel) -> float:
    """A tall picture needs no tall scale."""
    return min(1.0, 4 / _height(len(panel.names)))


def _drawable(panel: Panel) -> NDArray[np.float64]:
    """A logarithm has no place for 0: such a gradient takes the lowest colour."""
    if panel.is_share:
        return panel.values
    return np.where(panel.values == 0, np.finfo(float).tiny, panel.values)


def _scale(panel: Panel) -> Normalize:
    """Shares from 0 to 1; norms over the decades that there are, at most six below the largest."""
    if panel.is_share:
        return Normalize(0, 1)
    seen = panel.values[np.isfinite(panel.values) & (panel.values > 0)]
    if not seen.size:
        return LogNorm(1e-3, 1, clip=True)
    high = float(seen.max())
    low = max(float(seen.min()), high * 10**-_DECADES)
    return LogNorm(min(low, high / 10), high, clip=True)


def _draw_ratios(axes: Axes, panel: Panel) -> None:
    """Dots on a logarithmic axis; the usual range is shaded."""
    places = np.arange(len(panel.names))
    shown = np.isfinite(panel.profile) & (panel.profile > 0)
    axes.set_xscale("log")
    axes.axvspan(*_USUAL, color="#2e8b57", alpha=0.12, linewidth=0)
    axes.plot(panel.profile[shown], places[shown], color=_INK, marker="o", ms=3.5, ls="none")
    ends = [*panel.profile[shown], *_USUAL]
    axes.set_xlim(min(ends) / 2, max(ends) * 2)
    axes.set_xlabel("shaded: usual for matrices", fontsize=7, color="#4b5565")
    axes.grid(visible=True, alpha=0.25)


def _draw_shares(axes: Axes, panel: Panel) -> None:
    shown = np.where(np.isfinite(panel.profile), panel.profile, 0.0)
    axes.barh(range(len(panel.names)), shown, color=_INK, height=0.7)
    axes.set_xlim(0, 1)
    axes.grid(visible=True, axis="x", alpha=0.25)


def _short(name: str) -> str:
    """The ends of a long name say which layer it is, and which tensor of it."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"

"""Loss, gradient norm, hindrance, momentum and rate, and speed, over the steps; with what happened as marks.

Each kind of incident has a letter and a colour. Steps that were taken back are shaded, and what was logged of them is
drawn thin: they are no longer a part of the training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ava.checkpoint import atomic
from ava.reporting.stability_marks import STANDS_FOR, Mark, grouped, letters, taken_back

Rows = Sequence[dict[str, float]]
Panel = tuple[str, float, Callable[[Axes, Rows, Rows], None]]

_WIDTH, _DOTS_PER_INCH = 11.0, 130  # inches, and dots per inch
_COLOURS = (
    "#1f5f8b", "#d1495b", "#2e8b57", "#8a5bb5", "#e08e27", "#17a2a2", "#a0522d", "#c71585", "#808000", "#5b6770",
)  # fmt: skip
_SHADE, _GREY = "#f2a93b", "#9aa5b1"
_MOST_LETTERS = 40
"""Letters that fit beside one another above a panel."""


def draw(
    rows: Rows, incidents: Sequence[dict[str, Any]], path: Path, clip_norm: float | None = None
) -> None:  # fmt: skip
    """Draw a PNG; the file appears, or is replaced, in one step.

    Args:
        rows: of the log, in the order they were written; those of steps that were taken back may be among them.
        incidents: as in incidents.jsonl.
        path: ends in `.png`; the folder exists.
        clip_norm: the norm to which gradients are clipped, where it is fixed.

    Raises:
        OSError: the disk refused.
    """
    content = BytesIO()
    figure(rows, incidents, clip_norm).savefig(content, format="png", dpi=_DOTS_PER_INCH)
    atomic.write_lines(path, [content.getvalue()])


def figure(rows: Rows, incidents: Sequence[dict[str, Any]], clip_norm: float | None = None) -> Figure:
    """The picture, not yet written."""
    kept, dropped = taken_back(rows)
    panels = [panel for panel in _panels(clip_norm) if panel[0] != "hindrance" or _has(rows, "hindrance")]
    heights = [height for _, height, _ in panels]
    made = Figure(figsize=(_WIDTH, sum(heights) + 1.3), layout="constrained")
    grid = made.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    marks, steps = grouped(incidents), [row["step"] for row in [*rows, *incidents]]
    low, high = min(steps, default=1.0), max(steps, default=1.0)
    room = 0.01 * (high - low) or 0.5
    for axes, (name, _, fill) in zip(grid, panels, strict=True):
        fill(axes, kept, dropped)
        _mark(axes, marks, incidents)
        axes.set_ylabel(name, fontsize=8)
        axes.set_xlim(low - room, high + room)
        axes.tick_params(which="both", labelsize=7)
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top"]].set_visible(False)
    made.align_ylabels()
    _write_letters(grid[0], marks, high - low + 2 * room)
    made.suptitle(_headline(rows, incidents), fontsize=11)
    grid[-1].set_xlabel("optimizer step", fontsize=8)
    grid[-1].xaxis.set_major_locator(MaxNLocator(9, integer=True))
    if handles := _legend(marks, incidents):
        made.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
    return made


def _panels(clip_norm: float | None) -> list[Panel]:
    def norms(axes: Axes, kept: Rows, dropped: Rows) -> None:
        _curve(axes, kept, dropped, "grad_norm_max", "largest", _GREY, 0.8)
        _curve(axes, kept, dropped, "grad_norm", "gradient norm", _COLOURS[0])
        _curve(axes, kept, (), "expected_norm", "expected", _COLOURS[2], 1.2, "--")
        if clip_norm is not None:
            axes.axhline(clip_norm, color=_COLOURS[1], linewidth=0.9, linestyle=":", label="clip_norm")
        _finish(axes, is_log=True)

    return [("loss", 2.2, _loss), ("gradient norm", 1.9, norms), ("hindrance", 1.7, _hindrance),
            ("momentum", 1.5, _momentum), ("samples / s", 1.5, _speed)]  # fmt: skip


def _loss(axes: Axes, kept: Rows, dropped: Rows) -> None:
    _curve(axes, kept, dropped, "loss_max", "largest", _GREY, 0.8)
    _curve(axes, kept, dropped, "loss", "loss", _COLOURS[0])
    _curve(axes, kept, (), "expected_loss", "expected", _COLOURS[2], 1.2, "--")
    steps, values = _series(kept, "loss")
    if len(values) >= 20:
        axes.plot(steps, _smoothed(values), color=_COLOURS[1], linewidth=1.4, label="trend")
    _finish(axes, is_log=True)


def _hindrance(axes: Axes, kept: Rows, dropped: Rows) -> None:
    causes = dict.fromkeys(name for row in kept for name in row if name.startswith("hindrance/"))
    seen = [name for name in causes if any(row.get(name, 0.0) > 0 for row in kept)]
    for index, name in enumerate(seen):
        _curve(axes, kept, (), name, name.removeprefix("hindrance/"), _COLOURS[1 + index % (len(_COLOURS) - 1)], 1.0)
    _curve(axes, kept, dropped, "hindrance", "hindrance", "#20303c", 1.6)
    axes.set_ylim(-0.03, 1.05)
    _finish(axes, is_log=False)


def _momentum(axes: Axes, kept: Rows, dropped: Rows) -> None:
    _curve(axes, kept, dropped, "momentum", "momentum", _COLOURS[0])
    _curve(axes, kept, (), "lr", "lr (right)", _COLOURS[4], on=axes.twinx())
    _finish(axes, is_log=False)


def _speed(axes: Axes, kept: Rows, dropped: Rows) -> None:
    _curve(axes, kept, dropped, "throughput", "samples / s", _COLOURS[0])
    right = axes.twinx()
    _curve(axes, kept, (), "utilisation", "utilisation (right)", _COLOURS[2], 1.0, on=right)
    _curve(axes, kept, (), "loader_wait", "waiting for data (right)", _COLOURS[1], 1.0, on=right)
    right.set_ylim(-0.03, 1.05)
    axes.set_ylim(bottom=0)
    _finish(axes, is_log=False)


def _curve(
    axes: Axes, kept: Rows, dropped: Rows, name: str, label: str, colour: str, width: float = 1.3, style: str = "-",
    on: Axes | None = None,
) -> None:  # fmt: skip
    """One column; what was taken back is thin and pale. On another axis its label still stands in the first one's."""
    for rows, strength, thickness in ((dropped, 0.45, 0.7), (kept, 1.0, width)):
        steps, values = _series(rows, name)
        if not values.size:
            continue
        alone = "o" if len(values) == 1 else None
        (on or axes).plot(
            steps,
            values,
            color=colour,
            linestyle=style,
            marker=alone,
            markersize=4,
            alpha=strength,
            linewidth=thickness,
        )
        if rows is kept:
            axes.plot([], [], color=colour, linestyle=style, label=label)
    if on is not None:
        on.tick_params(labelsize=7)
        on.spines[["top"]].set_visible(False)


def _series(rows: Rows, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and values where the column is; what is not finite leaves a gap, and so do steps that go back."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = np.array(pairs, dtype=float).reshape(-1, 2).T
    values = np.where(np.isfinite(values), values, np.nan)
    back = np.flatnonzero(np.diff(steps) <= 0) + 1
    return np.insert(steps, back, np.nan), np.insert(values, back, np.nan)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of the tenth of the values around each: a line that outliers do not bend."""
    reach = max(2, len(values) // 20)
    padded = np.pad(values, reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    known = ~np.isnan(windows).all(axis=1)
    smooth = np.full(len(values), np.nan)
    smooth[known] = np.nanmedian(windows[known], axis=1)
    return smooth


def _finish(axes: Axes, is_log: bool) -> None:
    """Scale and legend. A logarithm is for numbers that are all above 0: what is not would vanish."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.array([])])
    values = values[np.isfinite(values)]
    if is_log and values.size and values.min() > 0:
        axes.set_yscale("log")
        axes.set_ylim(0.8 * values.min(), 1.25 * values.max())
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.09, 1.0), fontsize=7, frameon=False, borderaxespad=0.0)


def _mark(axes: Axes, marks: Sequence[Mark], incidents: Iterable[dict[str, Any]]) -> None:
    for one in incidents:
        if "to_step" in one:
            axes.axvspan(one["to_step"], one["step"], color=_SHADE, alpha=0.16, linewidth=0)
    strength = min(0.75, max(0.15, 20 / max(len(marks), 1)))
    for mark in marks:
        axes.axvline(mark.step, color=_colour(mark), linewidth=0.8, alpha=strength, zorder=1)


def _write_letters(axes: Axes, marks: Sequence[Mark], width: float) -> None:
    """Letters above the panel; where marks stand too close, the letters of several stand in one place."""
    together: list[tuple[float, list[Mark]]] = []
    for mark in sorted(marks, key=lambda one: one.step):
        if together and mark.step - together[-1][0] < width / _MOST_LETTERS:
            together[-1][1].append(mark)
        else:
            together.append((mark.step, [mark]))
    for step, group in together:
        shown = list({mark.letter: mark for mark in group}.values())
        for height, mark in enumerate(shown):
            axes.annotate(
                mark.letter, (step, 1.0), (0, 2 + 9 * height), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", fontsize=7, color=_colour(mark), weight="bold",
                annotation_clip=False,
            )  # fmt: skip


def _colour(mark: Mark) -> str:
    return _COLOURS[(1 + mark.number) % len(_COLOURS)]


def _legend(marks: Sequence[Mark], incidents: Sequence[dict[str, Any]]) -> list[Line2D | Patch]:
    counts = letters(incidents)
    first = {mark.letter: mark for mark in reversed(marks)}
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=_colour(first[letter]), label=f"{letter}  {name} ({count:,})")
        for letter, (name, count) in counts.items()
    ]
    if any("to_step" in one for one in incidents):
        handles.append(Patch(color=_SHADE, alpha=0.3, label="taken back"))
    return handles


def _headline(rows: Rows, incidents: Sequence[dict[str, Any]]) -> str:
    last = max((row["step"] for row in [*rows, *incidents]), default=0)
    count = sum(one.get(STANDS_FOR, 1) for one in incidents)
    told = f"{count:,} incident{'s' * (count != 1)}" if count else "no incident"
    return f"Stability up to step {int(last):,}: {told}"


def _has(rows: Rows, name: str) -> bool:
    return any(not math.isnan(row.get(name, math.nan)) for row in rows)

"""A schedule as a picture."""

from __future__ import annotations

import itertools
import textwrap
from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ava.checkpoint import atomic
from ava.reporting.schedule_curves import Drawing, Panel, limits, step_ticks

FORMATS = ("png", "svg", "pdf")
"""What `write` can write, by the ending of the file's name."""

_SHADES = {"warmup": "#f2a93b", "cooldown": "#4a90c4"}
_SHADE = 0.18
_COLOURS = (
    "#1f5f8b",
    "#d1495b",
    "#2e8b57",
    "#8a5bb5",
    "#e08e27",
    "#5b6770",
    "#17a2a2",
    "#a0522d",
    "#c71585",
    "#808000",
)
_WIDTH, _HEIGHT, _SMALL_HEIGHT, _DOTS_PER_INCH = 9.0, 3.6, 1.9, 150  # inches, and dots per inch


def write(drawing: Drawing, path: Path) -> None:
    """Draw every panel, one below the other, with its phases shaded; the file appears, or is replaced, in one step.

    Args:
        drawing: what to draw.
        path: its ending says the format, one of `FORMATS`; the folder exists.

    Raises:
        OSError: the disk refused.
    """
    content = BytesIO()
    figure(drawing).savefig(content, format=path.suffix.lower().removeprefix("."), dpi=_DOTS_PER_INCH)
    atomic.write_lines(path, [content.getvalue()])


def figure(drawing: Drawing) -> Figure:
    """The picture, not yet written."""
    small = max(0, len(drawing.panels) - 1)
    made = Figure(figsize=(_WIDTH, _HEIGHT + small * _SMALL_HEIGHT), layout="constrained")
    made.suptitle(drawing.title, fontsize=11)
    if not drawing.panels:
        made.text(0.5, 0.5, "\n".join(drawing.notes) or "Nothing moves.", ha="center", va="center", wrap=True)
        return made
    heights = [_HEIGHT] + [_SMALL_HEIGHT] * small
    grid = made.subplots(len(drawing.panels), 1, sharex=True, squeeze=False, height_ratios=heights)
    colours = itertools.cycle(_COLOURS)
    for axes, panel in zip(grid[:, 0], drawing.panels, strict=True):
        is_alone = len(panel.curves) == 1
        _draw(axes, drawing, panel, [_COLOURS[0]] if is_alone else [next(colours) for _ in panel.curves])
    grid[-1, 0].set_xlabel("\n".join(["optimizer step", *(textwrap.fill(note, 110) for note in drawing.notes)]))
    made.align_ylabels()
    shaded = [phase for phase in _SHADES if any(span.phase == phase for span in drawing.spans)]
    handles = [Patch(color=_SHADES[phase], alpha=_SHADE, label=phase) for phase in shaded]
    handles += [line for axes in grid[:, 0] for line in axes.lines if not line.get_label().startswith("_")]
    if handles:
        made.legend(handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=8, frameon=False)
    return made


def _draw(axes: Axes, drawing: Drawing, panel: Panel, colours: list[str]) -> None:
    for span in drawing.spans:
        if span.phase in _SHADES:
            axes.axvspan(span.first, span.last, color=_SHADES[span.phase], alpha=_SHADE, linewidth=0)
    for curve, colour in zip(panel.curves, colours, strict=True):
        label = f"{panel.name} of {curve.label}" if len(panel.curves) > 1 else None
        axes.plot(drawing.steps, curve.values, color=colour, linewidth=1.6, label=label)
    if panel.left_out:
        axes.set_title(f"{panel.left_out:,} more not drawn", fontsize=8, loc="right")
    axes.set_ylabel(panel.name)
    axes.set_ylim(limits(panel))
    axes.set_xlim(1, max(drawing.total_steps, 2))
    places = step_ticks(drawing.total_steps, 0.04)
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.ticklabel_format(axis="y", scilimits=(-3, 4), useMathText=True)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)

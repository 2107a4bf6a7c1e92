"""The picture of a search: loss over learning rate, and where the suggestions lie."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ava.optimization.learning_rate.finder.findings import Findings
from ava.optimization.learning_rate.finder.range_test import Curve
from ava.optimization.learning_rate.finder.trend import Trend, trend_of

INK, FAINT, LINE = "#1f2430", "#9aa3b2", "#2f5d9b"
COLOURS = {"probes": "#c2410c", "valley": "#a16207", "steepest": "#2e7d4f", "minimum": "#7b4fa3"}
WORDS = {"probes": "short trainings", "valley": "valley", "steepest": "steepest descent", "minimum": "minimum / 10"}


def draw(findings: Findings, save_path: str | Path | None = None) -> Figure:
    """Draw the losses, their trend, the band over seeds, and the suggestions; after a refusal its reason.

    Args:
        findings: of a search.
        save_path: where the picture goes; None saves nothing.

    Returns:
        The figure; no state of matplotlib's is touched.
    """
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    trend = _draw_losses(axes, findings)
    for method, one in findings.suggestions.items():
        _mark(axes, trend, method, one.lr, is_chosen=method == findings.method)
    _limit(axes, findings, trend)
    _label(axes, findings)
    if save_path is not None:
        figure.savefig(save_path)
    return figure


def _draw_losses(axes: Axes, findings: Findings) -> Trend | None:
    """The losses of each step, faint, and above them what the suggestions are read off."""
    centre, several = findings.centre, len(findings.curves) > 1
    if several:
        axes.fill_between(centre.lr, *findings.band, color=FAINT, alpha=0.25, lw=0, label="all seeds")
    label = f"loss, median of {len(findings.curves)} seeds" if several else "loss"
    axes.plot(centre.lr, centre.loss, color=FAINT, lw=0.8, marker=".", ms=3, alpha=0.8, label=label)
    axes.plot(centre.lr, centre.smoothed, color=LINE, lw=1, ls=":", label="smoothed (moving average)")
    trend = _trend(centre)
    if trend is not None:
        axes.plot(10**trend.x, trend.loss, color=LINE, lw=2.2, label="trend")
    return trend


def _trend(curve: Curve) -> Trend | None:
    """The trend of the finite losses, if there are enough to draw a line."""
    count = next((k for k, loss in enumerate(curve.loss) if not math.isfinite(loss)), len(curve.loss))
    return trend_of(curve.lr[:count], curve.loss[:count]) if count > 2 else None


def _mark(axes: Axes, trend: Trend | None, method: str, lr: float, *, is_chosen: bool) -> None:
    colour, label = COLOURS[method], f"{WORDS[method]}: {lr:.2g}"
    axes.axvline(lr, color=colour, lw=1.8 if is_chosen else 1, ls="-" if is_chosen else "--", alpha=0.9, zorder=1)
    height = [] if trend is None else [float(np.interp(math.log10(lr), trend.x, trend.loss))]
    axes.plot(
        [lr] * len(height), height, color=colour, marker="o", ls="none", ms=9 if is_chosen else 6, mec="white",
        zorder=5, label=label + ("  (suggested)" if is_chosen else ""),
    )  # fmt: skip


def _limit(axes: Axes, findings: Findings, trend: Trend | None) -> None:
    """Show the valley, not how far the end explodes."""
    centre = findings.centre
    axes.set_xscale("log")
    axes.set_xlim(centre.lr[0] / 1.2, max(centre.lr[-1], centre.lr[0] * 10) * 1.2)
    seen = [loss for loss in centre.loss if math.isfinite(loss)]
    if not seen or trend is None:
        return
    low = min(min(seen), float(trend.loss.min()))
    start = max(trend.start, float(trend.loss.max()))
    room = max(start - low, 0.05 * abs(start), 1e-12)
    axes.set_ylim(low - 0.08 * room, start + 0.45 * room)


def _label(axes: Axes, findings: Findings) -> None:
    axes.set_xlabel("learning rate", color=INK)
    axes.set_ylabel("training loss", color=INK)
    if findings.refusal is None:
        chosen = findings.chosen
        title, below = f"Learning rate {chosen.lr:.2g}", chosen.reason
    else:
        title, below = "No suggestion", str(findings.refusal)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=14 + 11 * _lines(below))
    axes.annotate(
        _wrapped(below), (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=8.5,
        color="#4b5565", va="bottom",
    )  # fmt: skip
    axes.grid(True, which="major", color="#e6e9ef", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower left", fontsize=8.5, frameon=True, framealpha=0.9, edgecolor="#e6e9ef")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 115)


def _lines(text: str) -> int:
    return len(_wrapped(text).splitlines())

"""The tables of `ava bench stability`, on the screen and as markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ava.bench.tables import console, show

Cell = Callable[[Mapping[str, Any]], str]


def _number(key: str, digits: int = 3, sign: bool = False) -> Cell:
    return lambda row: _said(row[key], digits, sign)


def _said(value: float | None, digits: int, sign: bool = False) -> str:
    if value is None:
        return "never"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _word(key: str) -> Cell:
    return lambda row: str(row[key])


def _of(count: str, total: str) -> Cell:
    return lambda row: f"{row[count]}/{row[total]}"


def _percent(share: str, interval: str) -> Cell:
    return lambda row: f"{100 * row[share]:.0f} ({100 * row[interval][0]:.0f} to {100 * row[interval][1]:.0f})"


def _between(middle: str, interval: str, digits: int = 3) -> Cell:
    return lambda row: f"{row[middle]:+.{digits}f} ({row[interval][0]:+.{digits}f} to {row[interval][1]:+.{digits}f})"


TABLES: dict[str, tuple[str, dict[str, Cell]]] = {
    "faults": ("faults by kind; losses in nats over the clean training's of the same seed", {
        "guard": _word("guard"), "optimizer": _word("optimizer"), "kind": _word("kind"), "problem": _word("problem"),
        "healed": _of("healed", "n"), "median": _number("delta", 3, True), "worst": _number("worst", 3, True),
        "gone back": _number("back", 1), "skipped": _number("skips", 1), "ended early": _word("failures"),
        "steps to recover": lambda row: " ".join("never" if one is None else str(one) for one in row["recovery"]),
        "taken again": lambda row: " ".join(map(str, row["again"])),
    }),
    "fault totals": ("faults, all kinds, problems and seeds", {
        "guard": _word("guard"), "optimizer": _word("optimizer"), "healed": _of("healed", "n"),
        "% (95 %)": _percent("share", "interval"), "kinds always healed": _word("kinds"),
        "steps to recover, median": _number("recovery_median", 0), "longest": _number("recovery_max", 0),
        "never": _word("recovery_never"), "taken again, mean": _number("again_mean", 1), "most": _word("again_max"),
    }),
    "grid": ("learning rates over two decades", {
        "problem": _word("problem"), "optimizer": _word("optimizer"), "guard": _word("guard"),
        "failed": _of("failed", "n"), "% (95 %)": _percent("rate", "interval"),
        "regret, median": _number("regret_median"), "mean, 1 at most": _number("regret_mean"),
        "best rate": lambda row: f"{row['best_lr']:.2g}",
    }),
    "clean": ("clean trainings", {
        "optimizer": _word("optimizer"), "problem": _word("problem"), "guard": _word("guard"), "steps": _word("steps"),
        "gone back / 10k": _number("back_10k", 1), "skipped / 10k": _number("skips_10k", 1),
        "clipped, shrunk, warned": _word("other"), "loss": _number("valid", 4),
        "over clip (95 %)": _between("over_clip", "interval", 4), "state, bytes a parameter": _number("state", 2),
    }),
    "cost": ("processor time of a step over that with clip", {
        "problem": _word("problem"), "optimizer": _word("optimizer"), "guard": _word("guard"),
        "ms": _number("ms", 2), "ratio": _number("ratio"), "rounds from, to": lambda row: f"{row['spread'][0]:.3f} to "
        f"{row['spread'][1]:.3f}",
    }),
    "claims": ("steps to AdamW's loss, both at their best rate of the same grid, clipped at norm 1", {
        "problem": _word("problem"), "optimizer": _word("optimizer"), "rate": lambda row: f"{row['lr']:.2g}",
        "seeds": _word("seeds"), "share of steps (95 %)": _between("share", "interval"),
        "never reached": _word("never"), "loss over AdamW's (95 %)": _between("over_adamw", "over_interval", 4),
        "state, bytes a parameter": _number("state", 2), "of AdamW's": _number("state_ratio"),
    }),
}  # fmt: skip
"""Name -> title, and heading -> cell."""
WORDS = ("guard", "optimizer", "kind", "problem")


def print_tables(tables: Mapping[str, Sequence[Mapping[str, Any]]], markdown: bool) -> None:
    """Print every table that has rows.

    Args:
        tables: name -> rows.
        markdown: rather than drawn.
    """
    for name, rows in tables.items():
        if not rows:
            continue
        title, cells = TABLES[name]
        made = [{heading: cell(row) for heading, cell in cells.items()} for row in rows]
        if markdown:
            console().print(_markdown(title, list(cells), made), soft_wrap=True, highlight=False, markup=False)
        else:
            show(title, {heading: heading for heading in cells}, WORDS, made)


def _markdown(title: str, headings: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """A table in GitHub's markdown, under its title."""
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    lines += ["| " + " | ".join(row[heading] for heading in headings) + " |" for row in rows]
    return "\n".join([f"**{title[0].upper()}{title[1:]}**", "", *lines, ""])

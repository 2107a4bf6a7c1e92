"""A schedule as text, as a picture and as CSV, from plain numbers."""

from __future__ import annotations

import csv
import io
import math

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from ava.reporting.schedule_curves import Curve, Drawing, Panel, Span, limits, step_ticks, write_csv
from ava.reporting.schedule_figure import figure, write
from ava.reporting.schedule_plot import curve_table, phase_table, plot_text

STEPS = list(range(1, 201))


def curve(label, values):
    low, high = min(values), max(values)
    return Curve(label, values, (values.index(low) + 1, low), (values.index(high) + 1, high))


def drawing(panels, **changes):
    spans = [Span("warmup", 1, 20), Span("main", 21, 150), Span("cooldown", 151, 200)]
    return Drawing("scheduler=x", 200, "trainer.max_steps", STEPS, panels, spans, [], **changes)


RISE = curve("all 2", [1e-5 * step for step in STEPS])
FALL = curve("head.*", [2e-3 - 1e-5 * step for step in STEPS])
DIP = curve("all 2", [0.9 + 0.05 * math.cos(step / 200 * 2 * math.pi) for step in STEPS])


def shown(table):
    console = Console(file=io.StringIO(), width=140)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [30, 80, 100, 213])
@pytest.mark.parametrize("colour", [True, False])
def test_the_plot_keeps_to_the_width_and_has_colours_only_where_asked(width, colour):
    text = plot_text(drawing([Panel("lr", [RISE, FALL]), Panel("momentum", [DIP])]), width, colour=colour)

    assert ("\x1b[" in text) is colour
    if not colour:
        assert max(map(len, text.splitlines())) <= max(width, 50)
        assert any("\u2801" <= character <= "\u28ff" for character in text)
        assert text.count("200") == 2
        assert [line.strip() for line in text.splitlines() if line.strip() in ("lr", "momentum")] == ["lr", "momentum"]


def test_the_curve_goes_where_the_numbers_go():
    rows = plot_text(drawing([Panel("lr", [RISE])]), 100, colour=False).splitlines()
    of = [i for i, row in enumerate(rows) if any("\u2801" <= c <= "\u28ff" for c in row)]
    left, right = ([i for i in of if any("\u2801" <= c <= "\u28ff" for c in rows[i][part])] for part in
                   (slice(0, 30), slice(70, None)))  # fmt: skip
    assert min(left) > max(right)  # below it
    assert all("a" not in row for row in rows)


def test_several_curves_have_the_letters_of_the_table():
    several = drawing([Panel("lr", [RISE, FALL], left_out=3)])
    text = plot_text(several, 100, colour=False)
    table = shown(curve_table(several))
    assert "a" in text
    assert "b" in text
    head = next(line for line in table.splitlines() if "head.*" in line)
    assert head.split() == ["b", "lr", "head.*", "0.00199", "0", "200", "0.00199", "1", "0"]
    assert "and 3 more, not drawn" in table


def test_phases_and_total():
    lines = shown(phase_table(drawing([]))).splitlines()
    assert [line.rstrip() for line in lines] == [
        "total     200 steps (trainer.max_steps)", "warmup    steps 1 to 20", "main      steps 21 to 150",
        "cooldown  steps 151 to 200",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([1e-3] * 200, (0.0, 1.25e-3)),
        ([0.0] * 200, (-1.0, 1.0)),
        (RISE.values, (0.0, 2e-3 * 1.06)),
        (DIP.values, (0.85 - 0.06 * 0.1, 0.95 + 0.06 * 0.106)),
    ],
)
def test_limits(values, ends):
    assert limits(Panel("lr", [curve("all", values)])) == pytest.approx(ends, rel=1e-3)


@pytest.mark.parametrize("total", [1, 2, 7, 500, 12_345, 10_000_000])
def test_ticks_rise_from_the_first_step_to_the_last(total):
    ticks = step_ticks(total, 0.08)
    assert (ticks[0], ticks[-1]) == (1, total)
    assert ticks == sorted(set(ticks))
    assert len(ticks) <= 9


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("panels", [[], [Panel("lr", [RISE, FALL], 2), Panel("momentum", [DIP])]])
def test_a_picture_is_written_whole(tmp_path, ending, panels):
    path = tmp_path / f"schedule.{ending}"
    write(drawing(panels), path)
    begin = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(begin)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_the_picture_shows_every_panel_and_names_what_it_shows():
    made = figure(drawing([Panel("lr", [RISE, FALL]), Panel("momentum", [DIP])]))
    assert isinstance(made, Figure)
    assert [axes.get_ylabel() for axes in made.axes] == ["lr", "momentum"]
    assert list(made.axes[0].lines[1].get_ydata()) == FALL.values
    named = [text.get_text() for text in made.legends[0].get_texts()]
    assert named == ["warmup", "cooldown", "lr of all 2", "lr of head.*"]


def test_csv_keeps_every_digit(tmp_path):
    path = tmp_path / "s.csv"
    write_csv(({"step": s, "lr": s / 3, "lr[1] a, b": None} for s in (1, 2)), path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["step", "lr", "lr[1] a, b"], ["1", str(1 / 3), ""], ["2", str(2 / 3), ""]]

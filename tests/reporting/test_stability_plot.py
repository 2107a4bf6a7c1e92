"""The picture of a run's stability, with whatever a run can have met."""

from __future__ import annotations

import math

import pytest

from ava.reporting.incidents import IncidentLog
from ava.reporting.metrics import MetricsLog
from ava.reporting.stability_figure import draw, figure
from ava.reporting.stability_marks import grouped, letters, taken_back
from ava.reporting.stability_plot import StabilityPlot
from ava.reporting.thinning import Thinned, ThinnedIncidents

CAUSES = ("explosion", "vanishing", "oscillation", "stagnation", "loss_spike", "nonfinite")


def row(step, **more):
    return {
        "step": step, "time": step / 10, "loss": 2.0 / (1 + step / 50), "lr": 1e-3, "grad_norm": 1 + step % 3,
        "grad_norm_max": 5.0, "loss_max": 2.5, "momentum": 0.9, "throughput": 900.0, "utilisation": 0.9,
        "loader_wait": 0.1, "hindrance": 0.2, "expected_norm": 1.5, **{f"hindrance/{name}": 0.1 for name in CAUSES},
    } | more  # fmt: skip


def incident(step, kind="loss_outlier", action="skip", **more):
    return {"step": step, "kind": kind, "action": action} | more


ROWS = [row(step) for step in range(5, 300, 5)]
RUNS = {
    "one line": ([row(5)], []),
    "nothing but an incident": ([], [incident(3)]),
    "no incident": (ROWS, []),
    "nothing finite": ([row(s, loss=math.nan, grad_norm=math.inf, grad_norm_max=math.inf, loss_max=math.nan)
                        for s in range(5, 50, 5)], [incident(5, "nonfinite_gradient")]),
    "gaps": ([one | ({"loss": math.nan} if one["step"] % 20 else {}) for one in ROWS], []),
    "negative loss": ([row(s, loss=-1.0 * s, loss_max=-1.0) for s in range(5, 50, 5)], []),
    "ten thousand lines": ([row(step) for step in range(1, 10_001)], [incident(5000)]),
    "many incidents": (ROWS, [incident(3 * i, kind, action) for i in range(90)
                              for kind, action in [("loss_outlier", "skip"), ("gradient_outlier", "clip"),
                                                   ("update_outlier", "shrink")][: 1 + i % 3]]),
    "many kinds": (ROWS, [incident(5 * i, f"kind_{i}") for i in range(1, 40)]),
    "rolled back": (ROWS[:40] + ROWS[30:], [incident(200, "persistent", "rollback", from_step=200, to_step=150),
                                            incident(205, "advice", "warn", rule="rate_too_high", text="...")]),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_every_run_can_be_drawn(tmp_path, name):
    rows, incidents = RUNS[name]
    draw(rows, incidents, tmp_path / "stability.png", clip_norm=1.0)
    assert (tmp_path / "stability.png").read_bytes().startswith(b"\x89PNG")


def shown(axes, tick):
    """Whether a tick's label is within the panel: matplotlib keeps one beyond each end."""
    low, high = sorted(axes.get_ylim())
    return tick.get_text() and low <= tick.get_position()[1] <= high


@pytest.mark.parametrize("name", ["many incidents", "many kinds", "rolled back", "no incident"])
def test_no_two_texts_overlap(name):
    made = figure(*RUNS[name])
    made.canvas.draw()
    texts = [text for axes in made.axes for text in axes.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts] + [made._suptitle.get_window_extent()]
    boxes += [legend.get_window_extent() for axes in made.axes if (legend := axes.get_legend())]
    boxes += [legend.get_window_extent() for legend in made.legends]
    boxes += [tick.get_window_extent() for axes in made.axes for tick in axes.get_yticklabels() if shown(axes, tick)]
    clashes = [(i, j) for i, one in enumerate(boxes) for j, two in enumerate(boxes[:i]) if one.overlaps(two)]
    assert clashes == []


def test_the_panels_show_the_numbers():
    made = figure(ROWS, [incident(100)], clip_norm=1.0)
    loss, norm, hindrance = made.axes[:3]
    curves = {line.get_label(): line for line in loss.lines}
    assert {"loss", "largest", "trend"} <= curves.keys()
    assert {line.get_label() for line in norm.lines} >= {"gradient norm", "expected", "clip_norm"}
    assert {line.get_label() for line in hindrance.lines} >= {"hindrance", *CAUSES}
    assert [text.get_text() for text in loss.texts] == ["A"]
    assert [handle.get_text() for handle in made.legends[0].get_texts()] == ["A  loss_outlier: skip (1)"]


def test_without_hindrance_there_is_no_panel_for_it():
    bare = [{key: value for key, value in one.items() if not key.startswith("hindrance")} for one in ROWS]
    assert "hindrance" not in [axes.get_ylabel() for axes in figure(bare, []).axes]


def test_what_was_taken_back_is_told_from_what_holds():
    kept, dropped = taken_back([{"step": s} for s in (5, 10, 15, 20, 15, 20, 25)])
    assert [one["step"] for one in kept] == [5, 10, 15, 20, 25]
    assert [one["step"] for one in dropped] == [15, 20]


def test_letters_are_by_kind_and_action():
    incidents = [incident(5), incident(9), incident(5, "persistent", "rollback")]
    assert letters(incidents) == {"A": ("loss_outlier: skip", 2), "B": ("persistent: rollback", 1)}
    assert [(mark.step, mark.letter) for mark in grouped(incidents)] == [(5, "A"), (9, "A"), (5, "B")]
    many = [incident(i, f"kind_{i}") for i in range(30)]
    assert letters(many)["Z"] == ("others", 5)
    assert sum(count for _, count in letters(many).values()) == 30


def test_a_run_without_anything_to_tell_leaves_nothing(tmp_path):
    plot = StabilityPlot(tmp_path, always=False)
    plot.on_log({"step": 5, "loss": 1.0})
    plot.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("why", ["always", "hindrance", "incident"])
def test_reasons_to_draw(tmp_path, why):
    plot = StabilityPlot(tmp_path, always=why == "always")
    plot.on_log({"step": 5, "loss": 1.0} | ({"hindrance": 0.0} if why == "hindrance" else {}))
    if why == "incident":
        plot.on_incident(incident(5))
    plot.close()
    assert [path.name for path in tmp_path.iterdir()] == ["stability.png"]


def test_a_long_run_is_drawn_while_it_trains(tmp_path):
    now = iter(range(0, 10_000, 25))
    plot = StabilityPlot(tmp_path, always=True, clock=lambda: next(now))
    plot.on_log(row(5))
    assert not plot.picture.exists()
    plot.on_log(row(10))
    plot.on_log(row(15))
    assert plot.picture.exists()


def test_a_resumed_run_goes_on_with_it(tmp_path):
    log, incidents = MetricsLog(tmp_path / "metrics.jsonl"), IncidentLog(tmp_path / "incidents.jsonl")
    for step in (5, 10, 15):
        log.write(row(step))
        incidents.write(step, "loss_outlier", "skip")
    log.truncate_after(10)
    plot = StabilityPlot(tmp_path, always=True)
    plot.on_start({"run_dir": str(tmp_path), "first_step": 11})
    plot.on_log(row(15))
    assert [one["step"] for one in plot._rows.rows] == [5, 10, 15]
    assert [one["step"] for one in plot._incidents.rows] == [5, 10]


def test_a_long_run_takes_bounded_memory_and_keeps_its_extremes():
    rows, incidents = Thinned(64), ThinnedIncidents()
    for step in range(1, 100_001):
        rows.add({"step": step, "loss": 1.0, "loss_max": 9.0 if step == 3_333 else 1.0})
        incidents.add(incident(step, samples=list(range(8))))
    steps = [one["step"] for one in rows.rows]
    assert 32 <= len(steps) <= 64
    assert steps == sorted(steps)
    assert steps[-1] == 100_000
    assert max(one["loss_max"] for one in rows.rows) == 9.0
    assert len(incidents.rows) <= 401
    assert letters(incidents.rows) == {"A": ("loss_outlier: skip", 100_000)}
    assert "100,000 incidents" in figure(rows.rows, incidents.rows)._suptitle.get_text()


def test_a_run_that_ends_after_going_back_has_its_last_rows_taken_back(tmp_path):
    plot = StabilityPlot(tmp_path, always=True)
    for step in (10, 20, 30):
        plot.on_log(row(step))
    plot.on_rollback(15)
    kept, dropped = taken_back(plot._rows.rows)
    assert [one["step"] for one in kept if "loss" in one] == [10]
    assert [one["step"] for one in dropped if "loss" in one] == [20, 30]


@pytest.mark.parametrize(("losses", "scale"), [((3.0, 2.0, 1.0), "log"), ((1.0, 0.5, -2.0), "linear")])
def test_a_loss_that_crosses_zero_is_shown_whole(losses, scale):
    rows = [{"step": 5 * (i + 1), "loss": value} for i, value in enumerate(losses)]
    axes = figure(rows, []).axes[0]
    assert axes.get_yscale() == scale
    low, high = axes.get_ylim()
    assert low < min(losses)
    assert max(losses) < high


@pytest.mark.parametrize(
    ("more", "name"),
    [({"kind": "bad_start", "action": "restart", "sign": "stuck"}, "bad_start (stuck): restart"),
     ({"kind": "weights_jumped", "action": "restore"}, "weights_jumped: restore"),
     ({"kind": "ranks_differ", "action": "restore", "ranks": "1"}, "ranks_differ: restore")],
    ids=["bad_start", "weights_jumped", "ranks_differ"],
)  # fmt: skip
def test_every_kind_is_named_in_the_legend(more, name):
    made = figure(ROWS, [{"step": 20, **more}])
    assert [text.get_text() for text in made.legends[0].get_texts()] == [f"A  {name} (1)"]

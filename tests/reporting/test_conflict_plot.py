"""conflicts.png is drawn from what the log says of cosines and weights."""

from __future__ import annotations

import math

import pytest
from matplotlib.figure import Figure

from ava.reporting.conflict_figure import figure
from ava.reporting.conflict_plot import ConflictPlot, draw
from ava.reporting.conflicts import read_conflicts
from ava.reporting.metrics import MetricsLog


def log(num_objectives, steps, weights=True, names="abcdefgh"):
    """Rows as the trainer logs them; cosines wander, and differ between pairs."""
    rows = []
    for step in steps:
        row = {"step": step, "loss": 1.0}
        for i in range(num_objectives):
            if weights:
                row[f"surgery/weight/{names[i]}"] = 1 + math.sin(i + step / 50) / 2
            for j in range(i + 1, num_objectives):
                row[f"surgery/cosine/{names[i]}/{names[j]}"] = math.sin(3 * i + 5 * j + step / 90) * 0.8
        rows.append(row)
    return rows


def begins_as_png(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_rows_are_read_pair_by_pair():
    first, second = {"surgery/cosine/a/b": -0.5, "surgery/weight/a": 2.0}, {"surgery/cosine/a/b": 0.1}
    found = read_conflicts([{"step": 5, **first}, {"step": 9, **second}])
    assert found.names == ["a", "b"]
    assert found.steps == [5, 9]
    assert found.cosines == {("a", "b"): [-0.5, 0.1]}
    assert found.weights["a"][0] == 2
    assert math.isnan(found.weights["a"][1])
    assert found.mean(("a", "b")) == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("weighed", "key", "pair"),
    [
        (("next/byte", "kind"), "next/byte/kind", ("next/byte", "kind")),
        (("a", "b/c"), "a/b/c", ("a", "b/c")),
        ((), "top/left/low/right", ("top/left", "low/right")),
    ],
    ids=["known first", "known second", "in the middle"],
)
def test_names_may_have_slashes(weighed, key, pair):
    row = {"step": 1, f"surgery/cosine/{key}": 0.5, **{f"surgery/weight/{name}": 1.0 for name in weighed}}
    assert list(read_conflicts([row]).cosines) == [pair]


@pytest.mark.parametrize(
    ("num_objectives", "weights"), [(1, True), (2, True), (2, False), (4, True), (8, True)], ids=str
)
def test_a_picture_of_any_number_of_objectives(tmp_path, num_objectives, weights):
    draw(log(num_objectives, [1, 20, 40], weights), tmp_path / "c.png")
    assert begins_as_png(tmp_path / "c.png")


def test_the_picture_shows_means_curves_and_weights():
    made = figure(read_conflicts(log(3, range(1, 100, 20))))
    assert isinstance(made, Figure)
    assert [axes.get_ylabel() for axes in made.axes if axes.lines] == ["cosine", "weight"]
    numbers = [text.get_text() for text in made.axes[0].texts]
    assert len(numbers) == 6
    assert sorted(numbers[:2] + numbers[3:4]) == sorted({*numbers})


def test_only_the_pairs_most_in_conflict_are_named():
    made = figure(read_conflicts(log(8, [1, 2])))
    axes = next(axes for axes in made.axes if axes.get_ylabel() == "cosine")
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert named[0] == "22 others"
    assert len(named) == 7


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_leaves_a_gap(tmp_path, bad):
    values = [(1, bad, bad), (2, 0.5, 1.0)]
    rows = [{"step": step, "surgery/cosine/a/b": cosine, "surgery/weight/a": w} for step, cosine, w in values]
    assert read_conflicts(rows).mean(("a", "b")) == 0.5
    draw(rows, tmp_path / "c.png")
    draw(rows[:1], tmp_path / "d.png")
    assert begins_as_png(tmp_path / "d.png")


def listened(run_dir, rows, first_step=1):
    plot = ConflictPlot(run_dir)
    plot.on_start({"run_dir": str(run_dir), "first_step": first_step})
    for row in rows:
        plot.on_log(row)
    return plot


def test_a_run_leaves_a_picture(tmp_path):
    listened(tmp_path, log(2, [1, 20])).close()
    assert [path.name for path in tmp_path.iterdir()] == ["conflicts.png"]
    assert begins_as_png(tmp_path / "conflicts.png")


def test_a_run_of_one_objective_leaves_none(tmp_path):
    listened(tmp_path, [{"step": 1, "loss": 2.0}]).close()
    assert not list(tmp_path.iterdir())


def test_a_resumed_run_draws_what_an_unbroken_one_would(tmp_path):
    rows = log(2, range(10, 60, 10))
    unbroken, resumed = tmp_path / "unbroken", tmp_path / "resumed"
    unbroken.mkdir()
    resumed.mkdir()
    listened(unbroken, rows).close()
    metrics = MetricsLog(resumed / "metrics.jsonl")
    for row in rows[:4]:
        metrics.on_log(row)
    metrics.on_eval({"step": 30, "eval/loss": 1.0})
    metrics.close()
    listened(resumed, rows[3:], first_step=31).close()
    assert (unbroken / "conflicts.png").read_bytes() == (resumed / "conflicts.png").read_bytes()

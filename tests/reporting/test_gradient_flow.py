"""The log of detailed steps, and its picture."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ava.reporting import gradient_flow_figure
from ava.reporting.gradient_flow import GradientFlow
from ava.reporting.gradient_flow_figure import draw, figure


def rows(layers, steps, activations=2):
    names = [f"blocks.{index}.weight" for index in range(layers)]
    return [
        {
            "step": 100 * step,
            "noise_scale": 812.3 if step > 1 else None,
            "layers": {
                name: {"grad_norm": 10.0**-index / step, "weight_norm": 1.0, "update_ratio": 1e-3, "zero_grads": 0.0}
                for index, name in enumerate(names)
            },
            "activations": {
                f"act.{index}": {"mean": 0.0, "std": 1.0, "max": 2.0, "dead": index / 10}
                for index in range(activations)
            },
        }
        for step in range(1, steps + 1)
    ]


def test_lines_go_on_and_the_picture_comes_at_the_end(tmp_path):
    flow = GradientFlow(tmp_path)
    made = rows(3, 4)
    for row in made[:3]:
        flow.on_detail(row)
    flow.on_checkpoint(300, tmp_path)
    assert flow.truncate_after(200) == 2
    assert not flow.picture.exists()
    flow.on_detail(made[3])
    flow.close()
    assert [row["step"] for row in flow.log.read()] == [100, 200, 400]
    assert flow.log.read()[1]["layers"] == made[1]["layers"]
    assert flow.picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gradient_flow.png", "health.jsonl"]


def test_a_run_without_detailed_steps_leaves_nothing(tmp_path):
    flow = GradientFlow(tmp_path)
    flow.close()
    assert list(tmp_path.iterdir()) == []


def test_the_picture_shows_the_numbers():
    made = figure(rows(3, 4))
    heat, profile, _, dead, shares, _ = sorted_axes(made)
    assert heat.images[0].get_array()[:, 1].tolist() == pytest.approx([0.5, 0.05, 0.005])
    assert [label.get_text() for label in heat.get_yticklabels()] == [f"blocks.{index}.weight" for index in range(3)]
    assert [label.get_text() for label in heat.get_xticklabels()] == ["100", "200", "300", "400"]
    assert profile.lines[0].get_xdata().tolist() == [1e-3] * 3
    assert dead.images[0].get_array()[1].tolist() == [0.1] * 4
    assert [bar.get_width() for bar in shares.patches] == [0.0, 0.1]
    assert "noise scale 812 samples" in made.get_suptitle()


def sorted_axes(made):
    """Each panel's heat map, profile and scale."""
    heats = [axes for axes in made.axes if axes.images]
    scales = [axes for axes in made.axes if axes.get_label() == "<colorbar>"]
    others = [axes for axes in made.axes if axes not in heats + scales]
    return [axes for panel in zip(heats, others, scales, strict=True) for axes in panel]


def test_what_is_not_finite_is_red_and_what_is_not_known_is_grey():
    made = rows(2, 3)
    made[1]["layers"]["blocks.0.weight"]["grad_norm"] = "nan"
    made[2]["layers"]["blocks.1.weight"]["grad_norm"] = math.inf
    made[2]["layers"]["blocks.1.weight"]["update_ratio"] = None
    del made[0]["layers"]["blocks.1.weight"]
    heat = figure(made).axes[0]
    assert heat.get_title() == "gradient norm; red: not finite; grey: not known"
    assert (~np.ma.getmaskarray(heat.images[1].get_array())).tolist() == [[False, True, False], [False, False, True]]


@pytest.mark.parametrize(("layers", "steps"), [(1, 1), (12, 30), (60, 3), (130, 2), (3, 1000)], ids=str)
def test_labels_do_not_overlap(layers, steps, monkeypatch):
    monkeypatch.setattr(gradient_flow_figure, "_MOST_LABELS", 64)  # measuring texts takes its time
    made = figure(rows(layers, steps))
    made.canvas.draw()
    for axes in made.axes:
        for labels, axis in ((axes.get_xticklabels(), 0), (axes.get_yticklabels(), 1)):
            shown = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
            spans = sorted((box.min[axis], box.max[axis]) for box in shown)
            assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans)), axes.get_title()


@pytest.mark.parametrize(
    "row",
    [
        {"step": 1, "layers": {}, "activations": {}},
        {"step": 1, "noise_scale": "nan", "layers": {"a": {"grad_norm": 0.0, "update_ratio": 0.0}}, "activations": {}},
        {"step": 1, "noise_scale": None, "layers": {"a" * 90: {"grad_norm": "inf", "update_ratio": None}}},
    ],
    ids=["nothing", "zeros", "infinite"],
)
def test_rows_with_little_in_them(tmp_path, row):
    draw([row], tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 1000

"""The surgery bench measures every way beside the plain sum, and what the gate catches."""

import json

import pytest
import torch

from ava.bench import surgery, surgery_arms, surgery_gate, surgery_scenes
from ava.cli.main import main
from ava.errors import InputError
from ava.optimization import GradientSurgeon


@pytest.fixture
def small(monkeypatch):
    """A trunk of two narrow layers: what is tested is the table, not the time."""
    monkeypatch.setattr(surgery_scenes, "BATCH", 2)
    monkeypatch.setattr(surgery_scenes, "SIZE", 8)
    monkeypatch.setitem(surgery_scenes.TRUNKS, "pooled", ((4, 1, 2), (4, 1, 1)))
    monkeypatch.setattr(surgery, "SHORTEST", 1)
    monkeypatch.setattr(surgery, "WARM_UP", 0)


def test_the_table_holds_the_base_peers_and_ours(small, tmp_path, capfd):
    file = tmp_path / "x.json"
    words = ["bench", "surgery", "--tasks", "2", "--rounds", "1", "--methods", "pcgrad", "famo", "--json", str(file)]
    assert main(words) == 0
    rows = {(row["method"], row["way"]): row for row in json.loads(file.read_text())["rows"]}
    assert rows["sum", "plain sum"]["ratio"] == 1.0
    assert {way for _, way in rows} >= {"mtl_backward", "passes and vectors", "a bare pass an objective", "adaptive"}
    assert {("pcgrad", "parameters"), ("pcgrad", "features"), ("famo", "losses")} <= {*rows}
    assert all(row["ratio"] > 0 and row["cpu_ms"] > 0 for row in rows.values())
    assert rows["pcgrad", "parameters"]["target"] == 1.7
    assert "torch threads" in capfd.readouterr().out


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="Did you mean `pcgrad`"):
        surgery.main(["--methods", "pcgrda"])


@pytest.mark.parametrize("build", [surgery_arms.vectors, surgery_arms.torchjd_in_turn, surgery_arms.by_hand])
def test_others_ways_do_the_same_work(small, build):
    """Two objectives in conflict: PCGrad has no order to choose, so all must agree."""
    scene = surgery_scenes.fan(2, in_conflict=True)
    _, losses = scene.forward()
    shared = list(scene.trunk.parameters())
    rows = [torch.autograd.grad(loss, shared, retain_graph=True) for loss in losses]
    expected = GradientSurgeon("pcgrad", "sum").apply(rows)
    build(scene)()
    for parameter, gradient in zip(shared, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("num_tasks", "pairs"), [(2, 1), (4, 1), (8, 6)])
def test_about_a_fifth_of_the_pairs_is_in_conflict(num_tasks, pairs):
    left, right = surgery_scenes.groups(num_tasks)
    assert left * right == pairs


def test_the_gate_catches_strong_conflicts(tmp_path, monkeypatch):
    monkeypatch.setattr(surgery_gate, "PROBLEMS", {"digits": surgery_gate.digits})
    file = tmp_path / "x.json"
    assert surgery.main(["--gate", "--steps", "20", "--seeds", "1", "--json", str(file)]) == 0
    rows = {row["weights"].split(",")[0]: row for row in json.loads(file.read_text())["rows"]}
    assert rows["sum"]["exact"] == "0.0%"
    assert rows["adaptive"]["cosine"] > 0.95
    assert rows["adaptive"]["caught"] is not None

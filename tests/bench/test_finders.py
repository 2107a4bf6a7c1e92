"""The measurement of learning-rate finders: what Ava's answers are, and that it would see if they were others."""

import json
import random

import numpy as np
import pytest
import torch

from ava.bench import finders
from ava.bench.arms.finder_arm import Range
from ava.bench.arms.peer_finders import PACKAGES, finder_named, is_installed
from ava.bench.finder_questions import CASES, ENDINGS, Case, aftermath, answer, costs, reached
from ava.bench.finder_scene import RATIO, are_equal, begun, fresh, holdings, train
from ava.cli.main import main

AVA = finder_named("ava")
PEERS = [name for name in PACKAGES if name != "ava"]
peers = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.skipif(not is_installed(n), reason="not installed")) for n in PEERS]
)


def careless(scene, tested):
    """A finder that restores nothing, and tells the middle of the range."""

    def search():
        scene.model.train()
        random.random()
        np.random.random()
        for group in scene.optimizer.param_groups:
            group["lr"] = tested.min_lr
        train(scene, 40)
        return (tested.min_lr * tested.max_lr) ** 0.5

    return search


@pytest.mark.parametrize("ending", ENDINGS)
def test_ava_leaves_everything_as_it_was(ending):
    found = aftermath(AVA, ending)
    assert all(found.kept.values()), found.kept
    raised = ENDINGS[ending]
    assert found.arrived == (None if raised is None else raised.__name__)
    assert len(found.rates) >= 90 if raised is None else len(found.rates) == 29


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_left_changed_is_seen(ending):
    found = aftermath(careless, ending)
    assert not any(found.kept.values()), found.kept


def test_looking_changes_nothing():
    scene = begun(0)
    assert are_equal(holdings(scene), holdings(scene))
    assert not are_equal(holdings(scene), holdings(begun(1)))


def test_ava_keeps_the_ratio_of_the_groups():
    found = aftermath(AVA, "finished", Range(1e-6, 1.0, 60))
    assert found.ratios == pytest.approx((RATIO, RATIO))
    assert found.rates[0][0] == pytest.approx(1e-6)
    assert aftermath(careless, "finished").ratios == (1.0, 1.0)


@pytest.mark.parametrize(("case", "said"), list(zip(CASES, [
    "NoSuggestion: the loss never fell by more than its noise",
    "NoSuggestion: the loss never fell by more than its noise",
    "NoSuggestion: max_lr=0.001: the loss still falls at the highest learning rate",
    "InputError: num_steps=100: the loader ends after 28 batches",
], strict=True)))  # fmt: skip
def test_ava_refuses_where_there_is_nothing_to_find(case, said):
    found = answer(AVA, CASES[case], seed=0)
    assert found.lr is None
    assert found.said.startswith(said)


def test_avas_suggestion_trains():
    found = answer(AVA, Case(), seed=0)
    assert 3e-3 < found.lr < 0.3
    assert reached(found.lr, 0, 100) < reached(found.lr / 100, 0, 100) / 2


def test_costs_are_of_the_steps_taken():
    cost = costs({"careless": careless}, rounds=2)["careless"]
    assert cost.steps == [40, 40]
    assert 0.5 < cost.ratio < 2.0
    assert min(cost.wall_s) > 0


def test_the_scene_is_what_the_text_says():
    scene = fresh(0)
    head, body = scene.optimizer.param_groups
    assert head["lr"] / body["lr"] == pytest.approx(RATIO)
    assert sum(p.numel() for group in (head, body) for p in group["params"]) == 26_634
    assert not begun(0).model[2].training
    assert len(begun(0).optimizer.state) == len(list(scene.model.parameters()))
    assert torch.isfinite(next(iter(scene.loader))[0]).all()


@peers
def test_peers_restore_the_weights(name):
    found = aftermath(finder_named(name), "error")
    assert found.kept["weights"]
    assert found.arrived == "ArithmeticError"
    assert len(found.rates) in (29, 30)  # a step whose closure failed is counted


@peers
def test_peers_answer(name):
    assert 1e-7 < answer(finder_named(name), Case(), seed=0).lr < 10


def test_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(finders, "is_installed", lambda name: name == "ava")
    file = tmp_path / "x.json"
    assert main(["bench", "finders", "--seeds", "1", "--steps", "10", "--rounds", "1", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert "Not measured: lightning is not installed." in out
    found = json.loads(file.read_text())
    cells = found["table"]["ava"]
    assert {said for question, said in cells.items() if question.endswith("as before")} == {"yes"}
    assert all(question[:20] in out for question in cells)
    assert found["measured"]["ava"]["honest"]["ratio"] > 0
    assert len(found["grid"]) == 9

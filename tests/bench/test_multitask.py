"""What surgery gains: the arithmetic by hand, and the table on trainings of a few steps."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ava.bench import multitask
from ava.bench.multitask import contest, line_up
from ava.bench.multitask_statistics import Interval, gain, interval, paired_gains
from ava.bench.multitask_trainings import METRICS, PROBLEM, Entrant, cosines, train
from ava.cli.main import main
from ava.config.parts import build_run
from ava.config.resume import prepare
from ava.distributed.world import join

BASE = {"left": 0.5, "right": 0.5, "turn": 0.8, "reconstruction": 0.2}
PLAIN = Entrant("plain", (("optimizer.lr=1e-2",),))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 0.0),
        ({"left": 0.6}, 0.05),
        ({"reconstruction": 0.1}, 0.125),
        ({"turn": 0.4, "reconstruction": 0.4}, -0.375),
    ],
    ids=["none", "more accurate", "less error", "both worse"],
)
def test_gain_by_hand(change, expected):
    assert gain(BASE | change, BASE, BASE) == pytest.approx(expected)


def test_gains_are_paired_by_seed_and_relative_to_the_bases_mean():
    base = [BASE | {"left": 0.4}, BASE | {"left": 0.6}]
    mine = [BASE | {"left": 0.5}, BASE | {"left": 0.6}]
    assert paired_gains(mine, base) == pytest.approx([0.1 / 0.5 / 4, 0.0])


def test_interval_is_students():
    """The table's 2.776 for 4 degrees of freedom."""
    found = interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3.0
    assert found.margin == pytest.approx(2.776445 * math.sqrt(2.5 / 5), rel=1e-5)
    assert interval([1.0]).margin == math.inf


@pytest.mark.parametrize(
    ("mean", "margin", "verdict"),
    [(2.0, 1.0, "better"), (-2.0, 1.0, "worse"), (0.5, 1.0, "not shown"), (math.nan, math.nan, "diverged")],
    ids=["above", "below", "around", "nan"],
)
def test_verdict(mean, margin, verdict):
    assert Interval(mean, margin).verdict == verdict


def test_cosines_are_of_the_shared_gradients():
    config, _ = prepare([*PROBLEM, "trainer.max_steps=1"])
    with join("cpu") as world:
        run, _ = build_run(config, world)
        batch = next(run.loader.windows(run.position)).batches[0]
        found = cosines(run, batch)
        losses = list(run.task.losses(run.model, batch).values())
        trunk = list(run.model.blocks.parameters())
        rows = [torch.cat([g.flatten() for g in torch.autograd.grad(x, trunk, retain_graph=True)]) for x in losses]
    by_hand = [one @ other / (one.norm() * other.norm()) for k, one in enumerate(rows) for other in rows[k + 1 :]]
    torch.testing.assert_close(found, torch.stack(by_hand))
    assert all(parameter.grad is None for parameter in run.parameters)


def test_a_training_is_the_same_again_and_better_than_none():
    trained = train(PLAIN, PLAIN.candidates[0], 0, 40)
    assert trained == train(PLAIN, PLAIN.candidates[0], 0, 40)
    still = train(PLAIN, ("optimizer.lr=1e-9",), 0, 40)
    assert trained.scores["reconstruction"] < still.scores["reconstruction"]
    assert trained.scores["turn"] > still.scores["turn"]
    assert 0 < trained.conflicts < 1


def test_alone_each_objective_has_a_model_of_its_own():
    apart = Entrant("alone", PLAIN.candidates, apart=True)
    alone = train(apart, apart.candidates[0], 0, 30)
    only_left = [f"task.{name}_weight=1e-6" for name in METRICS if name != "left"]
    assert alone.scores["left"] == train(PLAIN, ("optimizer.lr=1e-2", *only_left), 0, 30).scores["left"]
    assert math.isnan(alone.conflicts)


def test_the_rate_is_chosen_on_seeds_of_their_own(monkeypatch):
    monkeypatch.setattr(multitask, "TUNING_SEEDS", (1000,))
    entrants = [Entrant("none", (("optimizer.lr=1e-9",), ("optimizer.lr=1e-2",))), PLAIN]
    base, same = contest(entrants, 2, 20)
    assert base["overrides"] == "optimizer.lr=1e-2"
    assert base["tuning"]["optimizer.lr=1e-9"] == 0.0
    assert base["tuning"]["optimizer.lr=1e-2"] > 0
    assert (base["gain"], same["gain"]) == (0.0, 0.0)
    assert same["seeds"] == base["seeds"]
    assert base["seeds"][0] != base["seeds"][1]


def test_all_that_is_compared():
    names = [entrant.label for entrant in line_up(["pcgrad"], [1e-2])]
    assert names == ["none", "pcgrad", "scalarisation", "each alone"]
    plain = line_up([], [1e-2])[1].candidates[0]
    assert plain == ("optimizer.lr=0.01",)
    for entrant in line_up(["pcgrad"], [1e-2], ["trainer.clip=none"]):
        assert all(candidate[0] == "trainer.clip=none" for candidate in entrant.candidates)


def test_the_command_prints_a_table_and_writes_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(multitask, "WEIGHTINGS", ({}, {"turn": 3.0}))
    monkeypatch.setattr(multitask, "TUNING_SEEDS", (1000,))
    file = tmp_path / "x.json"
    words = ["--methods", "--seeds", "1", "--steps", "5", "--rates", "1e-2", "--json", str(file)]
    assert main(["bench", "multitask", *words]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["label"] for row in rows] == ["none", "scalarisation", "each alone"]
    assert all(len(row["seeds"]) == 1 for row in rows)
    printed = capsys.readouterr().out
    assert "in conflict" in printed
    assert "each alone" in printed


def test_an_unknown_method_is_refused(capsys):
    assert main(["bench", "multitask", "--methods", "pcgard"]) == 2
    assert "pcgard" in capsys.readouterr().err

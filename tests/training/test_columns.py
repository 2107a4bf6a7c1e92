"""What a line of the log says of the steps since the last line."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import ava
from ava.reporting.listener import Listener
from ava.reporting.metrics import MetricsLog
from ava.training import columns
from ava.training.journal import Journal
from ava.training.loop import Trainer
from ava.training.movement import Movement
from ava.training.step import training_step
from ava.training.usage import Usage
from tests.training.helpers import small_run

QUICK = ["model.width=8", "logger=[]", "trainer.device=cpu", "trainer.max_steps=20", "trainer.log_every=10",
         "trainer.eval_every=0"]  # fmt: skip


def logged(run_dir):
    return [row for row in MetricsLog(run_dir / "metrics.jsonl").read() if "loss" in row]


def test_a_line_tells_of_all_steps_since_the_last(tmp_path):
    """The same run, logged at every step, says what mean and extremes have to be."""
    ava.train([*QUICK, f"run_dir={tmp_path / 'few'}"])
    ava.train([*QUICK, "trainer.log_every=1", f"run_dir={tmp_path / 'all'}"])
    every = logged(tmp_path / "all")
    losses, norms = [row["loss"] for row in every], [row["grad_norm"] for row in every]
    for number, row in enumerate(logged(tmp_path / "few")):
        these = slice(10 * number, 10 * number + 10)
        assert row["loss_mean"] == pytest.approx(np.mean(losses[these]))
        assert row["loss_max"] == max(losses[these])
        assert row["grad_norm_median"] == pytest.approx(sorted(norms[these])[4])
        assert row["grad_norm_max"] == pytest.approx(max(norms[these]))
    slope = np.polyfit(range(16), losses[4:], 1)[0]
    assert row["loss_trend"] == pytest.approx(100 * slope, rel=1e-6)
    assert [row.get("loss_first") for row in logged(tmp_path / "few")] == [losses[0], None]
    assert not {"loss_mean", "loss_max", "grad_norm_max"} & every[3].keys(), "one step needs no mean"


@pytest.mark.parametrize(("optimizer", "momentum"), [("adamw", 0.9), ("sgd", 0.9), ("adagrad", None)])
def test_momentum_is_told_where_there_is_one(tmp_path, optimizer, momentum):
    ava.train([*QUICK, f"optimizer={optimizer}", f"run_dir={tmp_path / 'run'}"])
    assert [row.get("momentum") for row in logged(tmp_path / "run")] == [momentum] * 2


@pytest.mark.parametrize("recovery", ["off", "skip", "ladder"])
def test_hindrance_is_told_where_somebody_judges(tmp_path, recovery):
    ava.train([*QUICK, f"recovery={recovery}", f"run_dir={tmp_path / 'run'}"])
    for row in logged(tmp_path / "run"):
        judged = {name for name in row if name.startswith("hindrance")}
        assert ("hindrance" in judged) == (recovery != "off") == ("hindrance/explosion" in judged)
        assert all(0 <= row[name] <= 1 for name in judged)
    assert (tmp_path / "run" / "stability.png").exists() == (recovery != "off")


def test_shares_of_time_are_shares(tmp_path):
    ava.train([*QUICK, f"run_dir={tmp_path / 'run'}"])
    for row in logged(tmp_path / "run"):
        assert 0 <= row["loader_wait"] < 1
        assert 0 < row["utilisation"] <= 1
        assert 0 < row["weight_change"] < 1 if row["step"] > 10 else "weight_change" not in row


class Order(Listener):
    def __init__(self):
        self.seen = []

    def on_layers(self, step, norms):
        self.seen.append((step, norms))

    def on_log(self, row):
        self.seen.append((row["step"], row["grad_norm"]))


def test_layers_are_told_before_the_line(tmp_path):
    run, plan = small_run("trainer.log_every=10")
    order = Order()
    Trainer(run, plan, tmp_path, [order]).train()
    assert [step for step, _ in order.seen] == [10, 10, 20, 20]
    norms, whole = order.seen[0][1], order.seen[1][1]
    assert norms.keys() == {name for name, _ in run.model.named_parameters()}
    assert math.sqrt(sum(norm**2 for norm in norms.values())) == pytest.approx(whole, rel=1e-4)


def test_the_worst_step_is_told():
    calm = {"hindrance": 0.0, "hindrance/explosion": 0.0, "expected_norm": 1.0, "skip": 0.0}
    worse = {"hindrance": 0.7, "hindrance/explosion": 0.7, "expected_norm": 1.1, "skip": 0.0}
    last = calm | {"expected_norm": 1.2, "expected_loss": math.nan}
    told = columns.of_verdicts([calm, worse, {}, last])
    assert told == {"hindrance": 0.7, "hindrance/explosion": 0.7, "expected_norm": 1.2}
    assert columns.of_verdicts([{}, {}]) == {}


def test_what_is_not_finite_stays_so():
    row = columns.of_steps([1.0, math.nan, 2.0], [1.0, math.inf, 3.0], 1)
    assert math.isnan(row["loss_mean"])
    assert math.isnan(row["loss_max"])
    assert (row["grad_norm_median"], row["grad_norm_max"], row["skipped"]) == (1.0, math.inf, pytest.approx(1 / 3))
    assert columns.loss_trend([1.0, math.nan] * 8, 16) == {}
    assert columns.loss_trend([1.0] * 5, 5) == {}


def test_movement_is_that_of_the_weights():
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(40, 50)) for _ in range(40)]
    movement = Movement(weights)
    assert movement.since_last() == []
    movement.end_line()
    with torch.no_grad():
        for weight in weights:
            weight.mul_(1.01)
    change, size = movement.since_last()
    assert float(change / size) == pytest.approx(0.01 / 1.01, rel=1e-3)


def test_waiting_is_counted_and_pauses_are_not():
    usage = Usage(torch.device("cpu"))
    assert list(usage.waited(sum(range(200_000)) for _ in range(3))) == [sum(range(200_000))] * 3
    with usage.paused():
        sum(range(2_000_000))
    told = usage.read(1.0)
    assert 0 < told["loader_wait"] < 0.5
    assert told["utilisation"] < 0.5
    assert usage.read(1.0)["loader_wait"] == 0.0


@pytest.mark.parametrize(("words", "is_told"), [(["recovery=skip"], True), (["optimizer=agmohd"], True), ([], False)])
def test_the_length_of_the_update_is_told_where_somebody_knows_it(tmp_path, words, is_told):
    ava.train([*QUICK, *words, f"run_dir={tmp_path / 'run'}"])
    rows = logged(tmp_path / "run")
    assert [row.get("update_norm", 0.0) > 0 for row in rows] == [is_told] * 2


def test_momentum_is_that_of_the_optimizers_own_account(tmp_path):
    run, plan = small_run("optimizer=agmohd", "trainer.log_every=10")
    order = Order()
    order.on_log = lambda row: order.seen.append(row)
    order.on_layers = lambda step, norms: None
    Trainer(run, plan, tmp_path, [order]).train()
    told = run.optimizer.get_training_stats()
    assert order.seen[-1]["momentum"] == pytest.approx(told["momentum"])
    assert order.seen[-1]["update_norm"] == pytest.approx(told["update_norm"])


@pytest.mark.parametrize("words", [[], ["recovery=skip"], ["optimizer=agmohd"]], ids=["plain", "recovery", "agmohd"])
def test_a_line_costs_one_transfer(monkeypatch, words):
    """All that a line tells of tensors is read at once, whoever judges the steps."""
    run, _ = small_run(*words)
    journal, reads = Journal(run), []
    for window, _ in zip(run.loader.windows(run.position), range(10), strict=False):
        journal.add(training_step(run, window))
    original = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(1) or original(tensor))
    journal.read(1.0)
    assert len(reads) == 1


def test_nobody_who_watches_costs_nothing():
    run, _ = small_run()
    journal = Journal(run, is_watched=False)
    for window, _ in zip(run.loader.windows(run.position), range(2), strict=False):
        journal.add(training_step(run, window))
    row = journal.read(1.0)
    assert journal.layer_norms == {}
    assert "momentum" not in row
    assert journal._movement._now is None

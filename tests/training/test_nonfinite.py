"""A step whose gradient is not finite: what it leaves alone, what is told of it, and what is done about it."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch

from ava.errors import TrainingFailed
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.reporting.metrics import MetricsLog
from ava.training.loop import Trainer
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

BAD = 17
"""The sample that is not a number."""


def damaged_run(*overrides, bad=(BAD,)):
    run, plan = small_run("trainer.log_every=4", *overrides)
    images = run.loader.split.images.clone()
    images[list(bad)] = float("nan")
    run.loader.split = dataclasses.replace(run.loader.split, images=images)
    return run, plan


def trained(tmp_path, *overrides, bad=(BAD,)):
    run, plan = damaged_run(*overrides, bad=bad)
    log, incidents = MetricsLog(tmp_path / "metrics.jsonl"), IncidentLog(tmp_path / "incidents.jsonl")
    try:
        Trainer(run, plan, tmp_path, [log], incidents).train()
    finally:
        log.close()
    return run, log.read(), incidents.read()


def step_of(run, sample, epoch=0):
    """The step in whose window a sample lies, counted from 1."""
    windows = run.loader.plans(type(run.position)())
    for number, plan in enumerate(windows, 1):
        if plan.start.epoch == epoch and sample in run.loader.indices(plan.start, plan.num_samples):
            return number
    raise AssertionError


def test_skip_goes_on_and_tells_layers_and_samples(tmp_path):
    run, rows, incidents = trained(tmp_path, "health.on_nonfinite=skip", "trainer.max_steps=60")
    assert run.step == 60
    assert [i["step"] for i in incidents] == [step_of(run, BAD, 0), step_of(run, BAD, 1)]
    for incident in incidents:
        assert (incident["kind"], incident["action"], incident["in_a_row"]) == ("nonfinite_gradient", "skip", 1)
        assert BAD in incident["samples"]
        assert len(incident["samples"]) in (32, 898 % 32, 2)
        assert incident["num_layers"] == len(incident["layers"]) > 0
        assert set(incident["layers"]) <= {name for name, _ in run.model.named_parameters()}
    assert weights(run).isfinite().all()
    assert [row["step"] for row in rows if "loss" in row] == list(range(4, 61, 4))


@pytest.mark.parametrize(
    "extra", [(), ("trainer.ema_decay=0.9",), ("clip=zscore",), ("optimizer=lion", "clip=percentile")]
)
def test_a_skipped_step_changes_nothing(extra):
    """Parameters, optimizer, schedule, averages and what a clip remembers are bit for bit as before."""
    run, _ = damaged_run("scheduler.warmup_steps=10", *extra)
    windows = run.loader.windows(run.position)
    bad = step_of(run, BAD)
    for _ in range(bad - 1):
        training_step(run, next(windows))
    before = copy.deepcopy(run.state())
    report = training_step(run, next(windows))
    assert report.health.found_inf == 1
    after = run.state()
    for section in set(before) - {"progress", "rng"}:
        assert_same(before[section], after[section])
    # The step is counted; the schedule stands where it stood.
    assert after["progress"]["step"] == before["progress"]["step"] + 1
    assert run.scheduler.at(1) is not None
    clean, _ = small_run("scheduler.warmup_steps=10", *extra)
    assert clean.scheduler.state_dict().keys() == run.scheduler.state_dict().keys()


@pytest.mark.parametrize("extra", [(), ("optimizer.sam_rho=0.05",), ("trainer.accumulate=2",)])
def test_a_skipped_step_leaves_the_statistics_of_batch_norm(extra):
    """One sample that is not a number would make the running means so, and with them every evaluation to come."""
    run, _ = damaged_run("model=resnet", "model.norm=batch", "model.width=8", "trainer.ema_decay=0.9", *extra)
    run.network.train()
    windows, bad = run.loader.windows(run.position), step_of(run, BAD)
    run.position = dataclasses.replace(run.position, sample=(bad - 2) * 32)
    windows = run.loader.windows(run.position)
    training_step(run, next(windows))
    before = copy.deepcopy(run.state())
    assert training_step(run, next(windows)).health.found_inf == 1
    for section in ("model", "ema"):
        assert_same(before[section], run.state()[section])
    training_step(run, next(windows))
    assert not torch.equal(before["model"]["stem.1.running_mean"], run.model.stem[1].running_mean)
    assert all(buffer.isfinite().all() for buffer in run.model.buffers())


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def test_raise_names_the_layer_the_samples_and_what_to_try(tmp_path):
    with pytest.raises(TrainingFailed) as caught:
        trained(tmp_path, "trainer.max_steps=60", "health.on_nonfinite=raise")
    message = str(caught.value)
    assert "the gradient is not finite in blocks." in message
    assert "of the training data (epoch 0, from place" in message
    assert "health.anomaly=true" in message
    (incident,) = IncidentLog(tmp_path / "incidents.jsonl").read()
    assert incident["action"] == "raise"
    assert BAD in incident["samples"]


def test_more_than_so_many_in_a_row_end_the_run(tmp_path):
    everything = range(898)
    with pytest.raises(TrainingFailed, match=r"health.max_consecutive=3 steps in a row were not finite") as caught:
        trained(
            tmp_path, "health.on_nonfinite=skip", "health.max_consecutive=3", "trainer.max_steps=60", bad=everything
        )
    assert "step 4:" in str(caught.value)
    actions = [incident["action"] for incident in IncidentLog(tmp_path / "incidents.jsonl").read()]
    assert actions == ["skip", "skip", "skip", "raise"]


def test_rollback_returns_to_the_last_reading_and_goes_on_with_other_samples(tmp_path):
    run, rows, incidents = trained(
        tmp_path, "health.on_nonfinite=rollback", "trainer.max_steps=24", "trainer.eval_every=6", "checkpoint.every=5"
    )
    assert [i["action"] for i in incidents] == ["rollback"]
    bad = step_of(run, BAD)
    assert incidents[0]["step"] == bad
    assert run.step == 24
    # The samples of the steps from the last reading to the bad one were passed over; nothing is told twice.
    taken = run.position.epoch * 898 + run.position.sample
    assert taken > 24 * 32 - 32
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps)) == list(range(4, 25, 4))
    evaluated = [row["step"] for row in rows if "eval/loss" in row]
    assert evaluated == [6, 12, 18, 24]


def test_what_was_seen_before_the_kept_step_is_told_after_a_rollback(tmp_path):
    """Evaluations keep the run between two log lines: details of steps up to there are not lost with the later ones."""
    run, plan = damaged_run(
        "health.on_nonfinite=rollback", "trainer.log_every=12", "trainer.eval_every=2", "health.detail_every=1",
        "trainer.max_steps=24",
    )  # fmt: skip
    seen = []

    class Details(Listener):
        def on_detail(self, row):
            seen.append(row["step"])

    Trainer(run, plan, tmp_path, [Details()], IncidentLog(tmp_path / "incidents.jsonl")).train()
    assert seen == list(range(1, 25))


def test_rollback_gives_up_when_it_does_not_help(tmp_path):
    with pytest.raises(TrainingFailed, match=r"health\.max_consecutive=2"):
        trained(
            tmp_path, "health.on_nonfinite=rollback", "health.max_consecutive=2", "trainer.max_steps=60", bad=range(898)
        )
    actions = [incident["action"] for incident in IncidentLog(tmp_path / "incidents.jsonl").read()]
    assert actions.count("rollback") == 8
    assert actions[-1] == "raise"


@pytest.mark.parametrize("answer", ["skip", "rollback"])
def test_who_skips_already_is_not_told_to(tmp_path, answer):
    with pytest.raises(TrainingFailed, match=r"health\.max_consecutive=0") as caught:
        trained(tmp_path, f"health.on_nonfinite={answer}", "health.max_consecutive=0", bad=range(898))
    assert "look at these samples; if training was diverging" in str(caught.value)


def test_what_is_measured_is_logged(tmp_path):
    _, rows, _ = trained(tmp_path, "trainer.max_steps=8", bad=())
    for row in rows:
        if "loss" in row:
            assert row["grad/min"] <= row["grad/mean"] <= row["grad/max"]
            assert row["grad/std"] > 0
            assert 0 <= row["grad/sparsity"] <= 1
    (tmp_path / "none").mkdir()
    _, rows, _ = trained(tmp_path / "none", "trainer.max_steps=8", "health.statistics=false", bad=())
    assert not any(key.startswith("grad/") for row in rows for key in row)
    assert json.dumps(rows)


@pytest.mark.parametrize("method", ["famo", "gradnorm", "uncertainty", "pcgrad"])
def test_surgery_forgets_a_skipped_step(method, monkeypatch):
    """All losses are finite, and a gradient is not: what the method learned from that step is taken back."""
    run, _ = small_run(
        "task=digits_multitask", "model=mlp", "model.width=8", f"surgery={method}", "trainer.max_steps=9"
    )
    windows = run.loader.windows(run.position)
    for _ in range(2):
        training_step(run, next(windows))
    before = copy.deepcopy(run.surgery.state_dict())
    plain = type(run.task).losses

    def losses(self, model, batch):
        parts = plain(self, model, batch)
        zero = next(model.parameters()).flatten()[0] * 0
        return {name: part + zero.sqrt() for name, part in parts.items()}

    monkeypatch.setattr(type(run.task), "losses", losses)
    assert training_step(run, next(windows)).health.found_inf == 1
    after = run.surgery.state_dict()
    assert_same(before | {"step": 3}, after)
    monkeypatch.undo()
    training_step(run, next(windows))
    assert weights(run).isfinite().all()

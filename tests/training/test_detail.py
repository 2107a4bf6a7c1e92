"""Looks at each layer: every so many steps, without changing the training."""

from __future__ import annotations

import json

import pytest

import ava
from ava.errors import TrainingFailed
from tests.training.helpers import small_run, weights

QUICK = ["model.width=8", "logger=[]", "trainer.batch_size=64", "trainer.log_every=5", "trainer.max_steps=20"]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_layer_is_told_every_so_many_steps(tmp_path):
    ava.train([*QUICK, "health.detail_every=5", "trainer.accumulate=2", f"run_dir={tmp_path}"])
    rows = lines(tmp_path / "health.jsonl")
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    run, _ = small_run("model.width=8")
    assert set(rows[0]["layers"]) == {name for name, _ in run.model.named_parameters()}
    for row in rows:
        for layer in row["layers"].values():
            assert layer.keys() == {"grad_norm", "weight_norm", "update_norm", "update_ratio", "zero_grads"}
            assert layer["grad_norm"] > 0
        assert row["activations"]
    norms = {row["step"]: row["grad_norm"] for row in lines(tmp_path / "metrics.jsonl") if "loss" in row}
    for row in rows:
        squares = sum(layer["grad_norm"] ** 2 for layer in row["layers"].values())
        assert squares**0.5 == pytest.approx(norms[row["step"]], rel=1e-5)
    assert (tmp_path / "gradient_flow.png").stat().st_size > 10_000


def test_looking_changes_nothing(tmp_path):
    ava.train([*QUICK, "health.detail_every=1", "optimizer.sam_rho=0.05", f"run_dir={tmp_path / 'a'}"])
    ava.train([*QUICK, "optimizer.sam_rho=0.05", f"run_dir={tmp_path / 'b'}"])
    losses = [[row["loss"] for row in lines(tmp_path / name / "metrics.jsonl") if "loss" in row] for name in "ab"]
    assert losses[0] == losses[1]


def test_a_resumed_run_goes_on_without_gap_or_repeat(tmp_path):
    looked = ["health.detail_every=2", "trainer.accumulate=2", "checkpoint.every=5"]
    ava.train([*QUICK, *looked, f"run_dir={tmp_path / 'whole'}"])
    ava.train([*QUICK, *looked, f"run_dir={tmp_path / 'parts'}"])
    ava.train([f"resume={tmp_path / 'parts' / 'checkpoints' / 'step-15'}"])
    assert lines(tmp_path / "parts" / "health.jsonl") == lines(tmp_path / "whole" / "health.jsonl")


def test_without_it_there_is_no_file(tmp_path):
    ava.train([*QUICK, f"run_dir={tmp_path}"])
    assert not (tmp_path / "health.jsonl").exists()
    assert not (tmp_path / "gradient_flow.png").exists()


def test_anomaly_names_the_operation_and_ends_the_run(tmp_path, monkeypatch):
    from ava.models.convnet import ConvNet

    plain = ConvNet.forward
    monkeypatch.setattr(ConvNet, "forward", lambda self, x: plain(self, x) + (x.sum() * 0).log())
    with pytest.raises(TrainingFailed, match=r"step 1: `log` in the forward made infinity"):
        ava.train([*QUICK, "health.anomaly=true", f"run_dir={tmp_path}"])
    assert "log" in lines(tmp_path / "incidents.jsonl")[0]["error"]


def test_anomaly_changes_nothing_where_all_is_well():
    from ava.data.loader import Position
    from ava.training.step import training_step

    found = []
    for watch in ("true", "false"):
        run, _ = small_run(f"health.anomaly={watch}", "model.width=8", "trainer.accumulate=2")
        windows = run.loader.windows(Position())
        for _ in range(2):
            training_step(run, next(windows))
        found.append(weights(run))
    assert found[0].equal(found[1])


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_anomaly_beside_surgery_blames_no_mask(level):
    """A NaN that a mask cuts off leaves all rows finite."""
    from ava.data.loader import Position
    from ava.training.step import training_step

    chosen = ["task=digits_multitask", "model=mlp", "model.width=8", "surgery=pcgrad", f"surgery.level={level}"]
    run, _ = small_run(*chosen, "health.anomaly=true")
    plain = type(run.task).losses

    def losses(model, batch):
        parts = plain(run.task, model, batch)
        return {name: part + (part * 0 - 1).relu().sqrt() for name, part in parts.items()}

    object.__setattr__(run.task, "losses", losses)
    training_step(run, next(run.loader.windows(Position())))
    assert weights(run).isfinite().all()

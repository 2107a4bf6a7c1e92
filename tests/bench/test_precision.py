"""The bench of precisions: every arm in turns, what cannot be had with its reason, bf16 beside the loop by hand."""

import dataclasses
import json

import pytest
import torch

from ava.bench import precision
from ava.bench.precision_arms import ARMS, BASE, BY_HAND, Arm, train
from ava.bench.workloads import WORKLOADS


@pytest.fixture(autouse=True)
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setitem(WORKLOADS, "digits", dataclasses.replace(WORKLOADS["digits"], steps=10))


def test_the_table_holds_each_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "ARMS", ARMS[:2])
    file = tmp_path / "x.json"
    assert precision.main(["--model", "digits", "--rounds", "1", "--steps", "2", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert [row["arm"] for row in found["rows"]] == [BASE, "bf16"]
    assert [row["arm"] for row in found["by_hand"]] == [BY_HAND, "bf16"]
    for row in found["rows"]:
        assert row["mfu"] == "unknown"
        assert row["weights"] == row["gradients"]
        assert row["activations"] > 0
    assert found["rows"][1]["activations"] < found["rows"][0]["activations"]


def test_what_cannot_be_had_is_told_with_its_reason():
    arms = [ARMS[0], Arm("fp8", ("precision=fp8",))]
    rows, hand, refused = precision.compare("digits", arms, rounds=1, steps=1)
    assert [row["arm"] for row in rows] == [BASE]
    assert [row["arm"] for row in hand] == [BY_HAND]
    assert "fp8" in refused["digits convnet, fp8"]


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_both_loops_train_the_same_model(name):
    run = ARMS[1].build(name)
    _, model, loader = WORKLOADS[name].build()
    mine = {key: tuple(value.shape) for key, value in run.model.state_dict().items()}
    assert mine == {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert run.loader.batch_size == loader.batch_size
    assert run.optimizer.param_groups[0]["lr"] == WORKLOADS[name].lr


@pytest.mark.parametrize("arm", [arm for arm in ARMS if arm.name != "fp16"], ids=lambda arm: arm.name)
def test_an_arm_learns(arm):
    early, late = (train(arm.build("digits"), steps).loss for steps in (1, 20))
    assert late < early

"""The health bench measures what it says, with twins that tell the same numbers."""

import json
import math

import pytest
import torch

from ava.bench import health, health_arms
from ava.bench.parameter_sets import SETS
from ava.cli.main import main
from ava.optimization import GradientHealthMonitor


def tiny():
    return [parameter for _, parameter in SETS["tiny"].build()]


def test_every_arm_is_a_row(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(health, "SHORTEST", 0.0)
    file = tmp_path / "x.json"
    assert main(["bench", "health", "--sets", "tiny", "--rounds", "2", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert [row["arm"] for row in written["rows"]] == [arm.name for arm in health_arms.ARMS]
    assert "1 torch threads" in written["machine"]
    assert all(row["ratio"] > 0 for row in written["rows"])
    assert all(row["ratio"] == 1.0 for row in written["rows"] if row["arm"] == row["base"])
    assert "CPU ratio" in capsys.readouterr().out


def test_the_twins_tell_the_same_numbers():
    ours, naive = GradientHealthMonitor().check_gradients(tiny()), health_arms.naive(tiny(), health_arms.HIGH)
    assert naive == pytest.approx(ours, rel=1e-4, abs=1e-9)
    shared = [ours[key] for key in ("norm", "mean", "std", "max", "min", "num_zeros")]
    assert health_arms.lean(tiny(), health_arms.HIGH) == pytest.approx(shared, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", [arm.name for arm in health_arms.ARMS])
def test_gradients_change_only_where_clipping_is_meant(name):
    arm = next(arm for arm in health_arms.ARMS if arm.name == name)
    parameters = tiny()
    before = [parameter.grad.clone() for parameter in parameters]
    step = arm.make(parameters)
    for _ in range(3):
        step()
    changed = not all(torch.equal(p.grad, old) for p, old in zip(parameters, before, strict=True))
    assert changed == ("clipping" in name)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in parameters))
    whole = math.sqrt(sum(old.square().sum().item() for old in before))
    assert norm == pytest.approx(whole * (0.9997 if changed else 1.0), rel=1e-4)


def test_every_base_is_an_arm():
    assert {arm.base for arm in health_arms.ARMS} <= {arm.name for arm in health_arms.ARMS}


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--sets", "huge"]])
def test_other_bad_words_are_refused(words):
    with pytest.raises(SystemExit) as ended:
        health.main(words)
    assert ended.value.code == 2

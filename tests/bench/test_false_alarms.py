"""`ava bench false_alarms`: what is recorded, and what is made of it."""

from __future__ import annotations

import json
import math
import random

import pytest

from ava.bench import false_alarms
from ava.bench.alarm_rules import RULES
from ava.bench.clean_runs import Recording, recorded, wanted


def recording(steps: int = 300, spike: int | None = None) -> Recording:
    generator = random.Random(0)
    loss = [(0.5 + 2 * math.exp(-k / 60)) * math.exp(generator.gauss(0, 0.05)) for k in range(steps)]
    norm = [math.exp(generator.gauss(0, 0.2)) for _ in range(steps)]
    if spike is not None:
        loss[spike] *= 4
    return Recording("mlp", "sgd", 1.0, 0, norm, norm, loss, [0.1] * steps, ["main"] * steps, [32] * steps)


def test_alarms_are_counted_per_ten_thousand_steps():
    clean = false_alarms.clean_alarms([recording()], "mlp", {})
    assert (clean["runs"], clean["steps"], clean["skips"], clean["persistent"]) == (1, 300, 0, 0)
    assert false_alarms.clean_alarms([recording(spike=200)], "all", {})["skips"] == pytest.approx(33.3)
    assert false_alarms.clean_alarms([recording()], "gpt", {})["runs"] == 0


def test_faults_are_tried_from_a_state_that_they_do_not_change():
    once = [false_alarms.seen_once([recording()], name, {}) for name in false_alarms.ONCE]
    assert [row["seen"] for row in once] == ["100.0%"] * 4
    lasting = [false_alarms.seen_lasting([recording()], name, {}) for name in false_alarms.LASTING]
    assert all(row["seen"] == "100.0%" and row["delay"] <= 10 for row in lasting)


@pytest.mark.parametrize("rule", RULES, ids=[rule.name.split()[-1] for rule in RULES])
def test_known_rules_see_what_they_look_at(rule):
    judge = rule.build()
    for norm, loss in zip(recording().gradient, recording().loss, strict=True):
        judge.learn(norm, loss)
    assert judge.is_outlier(1000.0, 1000.0)
    assert not judge.is_outlier(1.0, 0.5)


def test_training_is_recorded_once(tmp_path):
    cache, keys = tmp_path / "runs.jsonl", wanted(["mlp"], [0], [1.0])[:1]
    first = list(recorded(keys, 12, cache))
    assert len(first[0].loss) == len(first[0].update) == 12
    assert set(first[0].samples) == {32}
    assert list(recorded(keys, 12, cache)) == first
    assert len(cache.read_text().splitlines()) == 1


@pytest.mark.slow
def test_the_command_writes_its_figures(tmp_path, capsys):
    out = tmp_path / "figures.json"
    assert false_alarms.main(["--tasks", "mlp", "--steps", "150", "--json", str(out)]) == 0
    assert "false alarms per 10,000" in capsys.readouterr().out
    figures = json.loads(out.read_text())
    assert [row["task"] for row in figures["clean"]] == ["mlp", "all", "all, batch sizes not told"]

from __future__ import annotations

import json
import math

import pytest

from ava.reporting.summary import Summary, mode_of


def watched(path, modes=None):
    summary = Summary(path / "summary.json", modes)
    for step, loss, accuracy in [(1, 3.0, 0.5), (2, 1.0, 0.9), (3, 2.0, math.nan), (4, math.nan, 0.8)]:
        summary.on_log({"step": step, "loss": loss, "lr": step / 10})
        summary.on_eval({"step": step, "time": 1.0, "eval/accuracy": accuracy, "eval/bits_per_byte": loss})
    return summary


def test_last_and_best_of_each_metric(tmp_path):
    summary = watched(tmp_path).complete({"steps": 4})
    assert summary["eval/accuracy"] == 0.8
    assert math.isnan(summary["loss"])
    assert summary["lr"] == 0.4
    assert summary["best"] == {
        "loss": {"value": 1.0, "step": 2},
        "eval/accuracy": {"value": 0.9, "step": 2},
        "eval/bits_per_byte": {"value": 1.0, "step": 2},
    }


def test_the_task_may_say_what_is_better(tmp_path):
    summary = watched(tmp_path, {"eval/accuracy": "min"}).complete({})
    assert summary["best"]["eval/accuracy"] == {"value": 0.5, "step": 1}


def test_facts_versions_and_revision_are_there(tmp_path):
    summary = watched(tmp_path).complete({"steps": 4, "seconds": 1.5, "parameters": 10})
    assert (summary["steps"], summary["seconds"], summary["parameters"]) == (4, 1.5, 10)
    assert set(summary["versions"]) == {"python", "torch", "numpy", "ava", "platform", "device"}
    assert summary["git"] is None or len(summary["git"]) >= 40


def test_the_file_is_strict_json(tmp_path):
    summary = watched(tmp_path)
    summary.on_end(summary.complete({"baselines": [{"name": "x", "metric": "y", "value": math.inf}]}))
    content = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert content["loss"] == "nan"
    assert content["baselines"][0]["value"] == "inf"
    assert content["best"]["loss"] == {"value": 1.0, "step": 2}


def test_rows_of_before_count_after_a_resume(tmp_path):
    summary = Summary(tmp_path / "summary.json")
    for row in [{"step": 1, "eval/loss": 0.1}, {"step": 2, "eval/loss": 0.3}]:
        summary.observe(row)
    summary.on_eval({"step": 3, "eval/loss": 0.2})
    assert summary.complete({})["best"]["eval/loss"] == {"value": 0.1, "step": 1}


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("loss", "min"),
        ("eval/loss", "min"),
        ("eval/bits_per_byte", "min"),
        ("eval/accuracy", "max"),
        ("eval/f1", "max"),
    ],
)
def test_the_name_says_what_is_better(metric, mode):
    assert mode_of(metric) == mode

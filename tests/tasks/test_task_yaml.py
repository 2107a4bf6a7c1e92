"""The yaml of each task lists exactly its options, with their defaults, and names parts that fit together."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ava import registry

CONF = Path(__file__).parents[2] / "conf" / "task"
TRAINER = {"max_steps", "max_epochs", "batch_size", "accumulate", "eval_every", "log_every"}


@pytest.mark.parametrize("name", registry.task.names())
def test_yaml_equals_signature(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n# ")
    config = yaml.safe_load(text)
    assert set(config) == {"defaults", "task", "trainer"}
    assert config["task"].pop("name") == name
    assert config["task"] == registry.task[name].defaults
    assert set(config["trainer"]) <= TRAINER
    assert all(isinstance(value, int) and value > 0 for value in config["trainer"].values())


@pytest.mark.parametrize("name", registry.task.names())
def test_default_data_and_model_are_of_the_tasks_kind(name):
    kind = registry.task[name].tags["kind"]
    chosen: dict[str, str] = {}
    for line in yaml.safe_load((CONF / f"{name}.yaml").read_text())["defaults"]:
        chosen |= line
    assert set(chosen) == {"override /data", "override /model"}
    assert registry.data[chosen["override /data"]].tags["kind"] == kind
    assert registry.model[chosen["override /model"]].tags["kind"] == kind


def test_every_yaml_has_a_task():
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == registry.task.names()

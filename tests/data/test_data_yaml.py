"""The yaml of each data source lists exactly its options, with their defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ava import registry

CONF = Path(__file__).parents[2] / "conf" / "data"


@pytest.mark.parametrize("name", registry.data.names())
def test_yaml_equals_signature(name):
    text = (CONF / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    options = yaml.safe_load(text)
    assert options.pop("name") == name
    if options.get("path") == "${path}":
        options["path"] = None
    assert options == registry.data[name].defaults
    assert {key: type(value) for key, value in options.items()} == {
        key: type(value) for key, value in registry.data[name].defaults.items()
    }


def test_every_yaml_has_a_source():
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == registry.data.names()


@pytest.mark.parametrize("entry", list(registry.data), ids=lambda entry: entry.name)
def test_every_source_says_what_it_fits(entry):
    assert entry.tags["kind"] in ("images", "tokens")
    assert entry.summary.endswith(".")

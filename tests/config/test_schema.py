from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from ava.config.paths import conf_directory
from ava.config.schema import PARTS, SECTIONS
from ava.config.validate import fields_of, root_fields
from ava.registry import REQUIRED


def read(path):
    return OmegaConf.to_container(OmegaConf.load(conf_directory() / path), resolve=False)


@pytest.mark.parametrize("section", [name for name in SECTIONS if name != "trainer"])
def test_the_first_file_of_a_section_lists_every_key_with_its_default(section):
    defaults = {key: default for key, (_, default) in fields_of(SECTIONS[section]).items()}
    chosen = next(c[section] for c in read("config.yaml")["defaults"] if isinstance(c, dict) and section in c)
    shared = f"{section}/_shared" in read("config.yaml")["defaults"]
    read_keys = (read(f"{section}/_shared.yaml") if shared else {}) | read(f"{section}/{chosen}.yaml")
    assert read_keys == {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}


def test_the_primary_file_lists_every_root_key_and_every_trainer_key():
    primary = read("config.yaml")

    assert primary["trainer"] == {key: default for key, (_, default) in fields_of(SECTIONS["trainer"]).items()}
    assert set(primary) - {"defaults", "trainer", "path", "clip"} == set(root_fields())
    for key, (_, default) in root_fields().items():
        assert primary[key] == (list(default) if isinstance(default, tuple) else default)


@pytest.mark.parametrize("group", PARTS)
def test_every_part_has_a_file_and_every_file_a_part(group):
    files = {path.stem for path in (conf_directory() / group).glob("[!_]*.yaml")}

    assert files == set(PARTS[group].names())


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in PARTS if g != "task" for n in PARTS[g].names()])
def test_a_part_s_file_lists_every_option_with_its_default(group, name):
    part = PARTS[group][name]
    options = {
        key: "???" if default is REQUIRED else list(default) if isinstance(default, tuple) else default
        for key, (_, default) in part.parameters.items()
        if key in part.own or key in part.tags.get("defaults", {})
    }
    tree = read(f"{group}/{name}.yaml")
    if tree.get("path") == "${path}":
        tree["path"] = None

    assert tree == {"name": name} | options


@pytest.mark.parametrize(
    "path", sorted(conf_directory().glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_file_begins_with_advice(path):
    assert path.read_text(encoding="utf-8").startswith("# ")

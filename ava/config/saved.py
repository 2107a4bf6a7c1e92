"""The configuration of a run as its directory keeps it: `config.yaml`, resolved, in plain YAML."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ava.config.limits import read_capped
from ava.config.schema import Config
from ava.config.sections import Sweep
from ava.config.validate import validate
from ava.errors import InputError

FILE = "config.yaml"


class _Dumper(yaml.SafeDumper):
    """A key per line, lists in one line; PyYAML keeps such choices on the class."""


_Dumper.add_representer(list, lambda dumper, x: dumper.represent_sequence("tag:yaml.org,2002:seq", x, flow_style=True))


def to_yaml(config: Config) -> str:
    """Spell a configuration as YAML; `load_saved` reads the same configuration from it."""
    return plain_yaml(config.as_dict())


def plain_yaml(tree: dict[str, Any]) -> str:
    """Spell plain nested dicts and lists as YAML, in their order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_saved(path: Path) -> dict[str, Any]:
    """Read a saved configuration without checking its keys. Nothing in it is imported, built or interpolated.

    Raises:
        InputError: it cannot be read, is too large, or is no configuration.
    """
    text = read_capped(path)
    try:
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be used: {' '.join(str(error).split())}.") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} is no configuration of a run.")
    return {str(key): value for key, value in tree.items()}


def load_saved(path: Path) -> Config:
    """Read and check a saved configuration; the plugins it needs must have been loaded.

    Raises:
        InputError: as `read_saved`, or something in it is not allowed.
    """
    try:
        return validate(read_saved(path))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def same_run(a: Config, b: Config) -> bool:
    """Judge whether two configurations train the same, wherever they write and whatever they continue."""
    return _identity(a) == _identity(b)


def differences(a: Config, b: Config) -> list[str]:
    """List the keys in which two configurations do not train the same."""
    left, right = _flat(_identity(a).as_dict()), _flat(_identity(b).as_dict())
    return sorted(key for key in left.keys() | right.keys() if left.get(key) != right.get(key))


def _identity(config: Config) -> Config:
    """What says how it trains; a learning rate that the run finds for itself is none of it."""
    if config.lr_finder.enabled:
        config = with_lr(config, 1.0)
        for group in config.optimizer.options["groups"]:
            if group.get("lr") is not None:
                group["lr"] = float(f"{group['lr']:.12g}")  # there and back again is not exact
    return dataclasses.replace(config, run_dir=None, resume=None, sweep=Sweep())


def with_lr(config: Config, lr: float) -> Config:
    """The same with another learning rate; groups with one of their own keep their ratio to it."""
    options = dict(config.optimizer.options)
    ratio = lr / options["lr"]
    groups = [
        {**group, "lr": group["lr"] * ratio} if group.get("lr") is not None else dict(group)
        for group in options["groups"]
    ]
    part = dataclasses.replace(config.optimizer, options={**options, "lr": lr, "groups": tuple(groups)})
    return dataclasses.replace(config, optimizer=part)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat

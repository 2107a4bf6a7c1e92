"""Overrides and files become one configuration: composed by Hydra, measured, resolved and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ava.config import loader as loading
from ava.config import overrides as overriding
from ava.config.combinations import check_combinations
from ava.config.composing_errors import in_our_words
from ava.config.interpolation import check_interpolations
from ava.config.plugins import load_plugins
from ava.config.schema import PARTS, Config
from ava.config.validate import validate
from ava.errors import InputError


@dataclass(frozen=True)
class Composed:
    """What the command line says.

    Attributes:
        overrides: the overrides, parsed.
        groups: which of their keys choose an option of a group.
        unresolved: the composed configuration, `${interpolations}` still in it.
        resolved: the same with their values.
    """

    overrides: tuple[Override, ...]
    groups: frozenset[str]
    unresolved: dict[str, Any]
    resolved: dict[str, Any]


def compose(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Config:
    """Compose and check a configuration.

    Args:
        overrides: as they stand on the command line.
        config_dirs: the user's directories of configuration files.

    Raises:
        InputError: it cannot be composed, or something in it cannot be.
    """
    return checked(compose_raw(overrides, config_dirs).resolved)


def checked(raw: Mapping[str, Any]) -> Config:
    """Check keys, types and ranges, then what does not go together."""
    config = validate(raw)
    check_combinations(config)
    return config


def compose_raw(overrides: Sequence[str], config_dirs: Sequence[Path] = (), base: Sequence[str] = ()) -> Composed:
    """Compose a configuration without checking its keys.

    Args:
        overrides: as they stand on the command line.
        config_dirs: the user's directories of configuration files.
        base: choices of groups that hold unless an override chooses otherwise, `group=option`.

    Raises:
        InputError: it cannot be composed.
    """
    parsed = overriding.parse(overrides)
    plugins = overriding.named_plugins(parsed)
    load_plugins(plugins)
    loader = loading.make_loader(config_dirs)
    groups = frozenset(o.key_or_group for o in parsed if loader.repository.group_exists(o.key_or_group))
    lines = overriding.for_hydra(parsed, groups.__contains__, lambda group: loading.options(loader, group))
    lines = [
        choice for choice in base or _fitting_task(parsed, groups) if choice.partition("=")[0] not in groups
    ] + lines
    unresolved, resolved = _compose(loader, lines)
    if unresolved.get("plugins") != plugins and unresolved.get("plugins") not in (None, []):
        raise InputError(
            "only the command line can name plugins.", key="plugins", value=unresolved["plugins"],
            hint="Add `plugins=[...]` to the command.",
        )  # fmt: skip
    return Composed(tuple(parsed), groups, unresolved, _fold_clip(_fold_path(resolved), parsed))


def _fitting_task(parsed: Sequence[Override], groups: frozenset[str]) -> list[str]:
    """Choose the task for whoever names only data: the one that is made for any data of that kind."""
    chosen = {override.key_or_group: override.value() for override in parsed if override.key_or_group in groups}
    name = chosen.get("data")
    if "task" in chosen or "experiment" in chosen or name not in PARTS["data"]:
        return []
    kind = PARTS["data"][str(name)].tags.get("kind")
    general = [task.name for task in PARTS["task"] if task.tags.get("general") and task.tags.get("kind") == kind]
    own = [task.name for task in PARTS["task"] if task.name == name]
    return [f"task={task}" for task in own or general]


def _compose(loader: Any, lines: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Let Hydra compose; say in our words what it refuses."""
    try:
        config = loader.load_configuration("config", lines, RunMode.RUN, from_shell=False)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        unresolved = _own_options_first(OmegaConf.to_container(config, resolve=False))
        check_interpolations(unresolved)
        resolved = OmegaConf.to_container(config, resolve=True)
    except InputError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise in_our_words(error) from None
    return cast("tuple[dict[str, Any], dict[str, Any]]", (unresolved, resolved))


def _own_options_first(tree: Any) -> dict[str, Any]:
    """Put what all parts of a sort share behind a part's own options: Hydra merges it first, a reader wants it last."""
    for section, parts in PARTS.items():
        chosen = tree.get(section)
        if isinstance(chosen, dict) and isinstance(chosen.get("name"), str) and chosen["name"] in parts:
            shared = parts[chosen["name"]].shared & chosen.keys()
            own = {key: value for key, value in chosen.items() if key not in shared}
            tree[section] = {"name": own.pop("name")} | own | {k: v for k, v in chosen.items() if k in shared}
    return cast("dict[str, Any]", tree)


def _fold_path(resolved: dict[str, Any]) -> dict[str, Any]:
    """Move the shorthand `path` to where it belongs, `data.path`."""
    path, data = resolved.pop("path", None), resolved.get("data")
    if path is None or not isinstance(data, dict):
        return resolved
    if "path" not in data:
        readers = [part.name for part in PARTS["data"] if "path" in part.parameters]
        problem = f"data={data.get('name')} reads no files; sources that do: {', '.join(readers) or 'none'}."
        raise InputError(problem, key="path", value=path, hint="Choose one with `data=...`.")
    if data["path"] not in (None, "???", path):
        raise InputError(f"data.path={data['path']} says something else.", key="path", value=path, hint="Give one.")
    return resolved | {"data": data | {"path": path}}


def _fold_clip(resolved: dict[str, Any], parsed: Sequence[Override]) -> dict[str, Any]:
    """Move the shorthand `clip` to where it belongs, `trainer.clip`."""
    clip, trainer = resolved.pop("clip", None), resolved.get("trainer")
    if clip is None or not isinstance(trainer, dict):
        return resolved
    if trainer.get("clip") != clip and any(override.key_or_group == "trainer.clip" for override in parsed):
        raise InputError(
            f"trainer.clip={trainer['clip']} says something else.", key="clip", value=clip, hint="Give one."
        )
    return resolved | {"trainer": trainer | {"clip": clip}}

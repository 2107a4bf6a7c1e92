"""Plugins: modules whose import registers further parts, each then choosable by name without a file.

They come from `plugins=[my_package.my_module]` on the command line, with the working directory on the path, and
from the `ava.plugins` entry points of installed packages. A configuration file cannot name one: reading a
configuration never imports code.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ava.config.schema import PARTS
from ava.errors import InputError
from ava.registry import REQUIRED

ENTRY_POINTS = "ava.plugins"


def load_plugins(modules: Sequence[str]) -> None:
    """Import plugin modules and make their parts choosable.

    Raises:
        InputError: one cannot be imported, or registers what cannot be chosen or built; names it and the reason.
    """
    here = str(Path.cwd())
    if modules and here not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last: a file here must not stand in for an installed module
    named = [(module, module) for module in modules]
    named += [(f"{point.name} = {point.value}", point.module) for point in _entry_points()]
    for shown, module in named:
        try:
            importlib.import_module(module)
        except InputError as error:
            raise error.at("plugins", shown) from None
        except (Exception, SystemExit) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            problem = f"this plugin cannot be imported ({reason})."
            raise InputError(problem, key="plugins", value=shown, hint=_remedy(module, error)) from error
    _store_parts()


def _remedy(module: str, error: BaseException) -> str:
    name = module.removesuffix(".py").replace("/", ".").strip(".")
    if name != module and all(word.isidentifier() for word in name.split(".")):
        return f"Name a module, not its file: `plugins=[{name}]`."
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return "Name a module as Python imports it, from here or from an installed package."
    return "AVA_TRACEBACK=1 shows where."


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=ENTRY_POINTS))


def _store_parts() -> None:
    """Give each part of a plugin the configuration that a file would give it: its name and its defaults."""
    store = ConfigStore.instance()
    for group, parts in PARTS.items():
        for part in parts.plugin_entries():
            options = {key: "???" if default is REQUIRED else default for key, (_, default) in part.parameters.items()}
            try:
                node = OmegaConf.create({"name": part.name} | options)
            except OmegaConfBaseException as error:
                problem = f"its default {options.get(str(error.key))!r} is no plain value, as a file could hold."
                hint = "Take a text, number, list or mapping (or null), and look up the rest in the builder."
                raise InputError(f"{group}={part.name}: option `{error.key}`: {problem}", hint=hint) from None
            store.store(name=part.name, group=group, node=node, provider="ava")

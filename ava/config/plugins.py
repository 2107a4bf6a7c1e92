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

from ava.config.schema import PARTS
from ava.errors import InputError
from ava.registry import REQUIRED

ENTRY_POINTS = "ava.plugins"


def load_plugins(modules: Sequence[str]) -> None:
    """Import plugin modules and make their parts choosable.

    Raises:
        InputError: one cannot be imported, or registers a name that is taken; names it and the reason.
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
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(
                f"this plugin cannot be imported ({reason}).", key="plugins", value=shown,
                hint="Name a module as Python imports it, from here or from an installed package.",
            ) from error  # fmt: skip
    _store_parts()


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=ENTRY_POINTS))


def _store_parts() -> None:
    """Give each part of a plugin the configuration that a file would give it: its name and its defaults."""
    store = ConfigStore.instance()
    for group, parts in PARTS.items():
        for part in parts.plugin_entries():
            options = {key: "???" if default is REQUIRED else default for key, (_, default) in part.parameters.items()}
            store.store(name=part.name, group=group, node={"name": part.name} | options, provider="ava")

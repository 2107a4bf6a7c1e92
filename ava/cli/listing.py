"""`ava list`: what the registries hold, read from their files; torch is imported only where a rule is made of it."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from importlib.metadata import entry_points

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ava.config import words
from ava.errors import InputError, nearest
from ava.optimization.optimizers.composition import extend
from ava.optimization.optimizers.sentence import compose, slots_of
from ava.registry import REGISTRIES, REQUIRED, Entry, Registry

_LINK = re.compile(r"^\s*Reference: .*?(?P<link>https?://\S+[\w/])", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"^    (\w+): (.+?)(?=^    \w+: |^\S|\Z)", re.MULTILINE | re.DOTALL)
"""An option's lines in a docstring's `Args`."""
_DRIVERS = {"loss": "driven by the training loss", "eval": "driven by evaluations"}
"""What a schedule's tag `metric` means."""


def list_parts(asked: Sequence[str]) -> int:
    """Print a table of the parts of each sort.

    Args:
        asked: keys of `REGISTRIES`, such as "optimizers"; none asks for all. `plugins=[...]` adds what those register.

    Returns:
        The exit code.

    Raises:
        InputError: there is no such sort.
    """
    sorts = [word for word in asked if "=" not in word]
    _load_plugins([word for word in asked if "=" in word])
    for sort in sorts:
        if sort not in REGISTRIES:
            problem = f"there is no sort of parts called {sort!r}; there are: {', '.join(REGISTRIES)}."
            raise InputError(problem, hint=nearest(sort, REGISTRIES))
    console = Console(soft_wrap=False)
    for sort in sorts or REGISTRIES:
        entries = list(REGISTRIES[sort])
        console.print(_table(sort, entries))
        if REGISTRIES[sort].shared is not None:
            console.print(_shared_table(REGISTRIES[sort], entries))
    return 0


def _load_plugins(overrides: Sequence[str]) -> None:
    if not overrides and not entry_points(group="ava.plugins"):
        return  # spares importing Hydra
    from ava.config.overrides import named_plugins, parse
    from ava.config.plugins import load_plugins

    parsed = parse(overrides)
    other = [override.key_or_group for override in parsed if override.key_or_group != "plugins"]
    if other:
        raise InputError(f"a list depends on no {other[0]}.", hint="Only plugins=[...] can be given.")
    load_plugins(named_plugins(parsed))


def _table(sort: str, entries: Sequence[Entry]) -> Table:
    table = Table(title=sort, title_justify="left", box=box.SIMPLE_HEAD, expand=False)
    table.add_column("name", no_wrap=True)
    table.add_column("what it is", ratio=2, overflow="fold")
    has_state = sort == "optimizers"
    if has_state:
        table.add_column("state", justify="right", no_wrap=True)
    table.add_column("options, with their defaults", ratio=3)
    for entry in entries:
        paper = _LINK.search(entry.doc)
        kind = entry.tags.get("kind") or _DRIVERS.get(entry.tags.get("metric", ""))
        summary = entry.summary + (f" [{kind}]" if kind else "") + (f" {paper['link']}" if paper else "")
        state = [f"{state_bytes(entry):g} B"] if has_state else []
        table.add_row(entry.name, escape(summary), *state, escape(", ".join(_options(entry))))
    if has_state:
        table.caption = "state: bytes per parameter of a large square matrix, in float32 and with state=dense"
        table.caption_justify = "left"
    return table


def _options(entry: Entry) -> list[str]:
    listed = {*entry.own, *entry.tags.get("defaults", {})}
    return [
        f"{name}: {words.allowed(annotation)}" if default is REQUIRED else f"{name}={_shown(default)}"
        for name, (annotation, default) in entry.parameters.items()
        if name in listed
    ]


def _shared_table(parts: Registry, entries: Sequence[Entry]) -> Table:
    """What every part of a sort has besides its own options, said once."""
    table = Table(title=f"options of every {parts.sort}", title_justify="left", box=box.SIMPLE_HEAD, expand=False)
    for column in ("option", "default", "allowed", "what it does"):
        table.add_column(column, no_wrap=column in ("option", "default"))
    module, _, name = (parts.shared or "").partition(":")
    function = getattr(importlib.import_module(module), name)
    told = dict(_ARGUMENT.findall(inspect.getdoc(function) or ""))
    signature = inspect.signature(function).parameters
    for name in (name for name in signature if any(name in entry.shared for entry in entries)):
        annotation = next(entry.parameters[name][0] for entry in entries if name in entry.shared)
        meaning = " ".join(told.get(name, "").split())
        table.add_row(
            name, _shown(signature[name].default), escape(words.allowed(annotation)), escape(meaning)
        )  # fmt: skip
    return table


def state_bytes(entry: Entry) -> float:
    """Bytes of state per parameter that an optimizer keeps for a large square matrix with its default options.

    Float32, `state=dense`: 4 for each slot of the parameter's shape or of a square of one side; rows and columns are
    as good as none.
    """
    shared = {name: entry.defaults[name] for name in entry.shared} | {"state": "dense"}
    routes = extend(entry.load()(**{name: entry.defaults[name] for name in entry.own}), **shared)
    return 4.0 * sum(slot.shape in ("full", "left", "right") for slot in slots_of(compose(routes.matrices)))


def _shown(default: object) -> str:
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(list(default)) if isinstance(default, tuple) else str(default)

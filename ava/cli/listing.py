"""`ava list`: what the registries hold, read from their files without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ava.config import words
from ava.errors import InputError, nearest
from ava.registry import REGISTRIES, REQUIRED, Entry


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
        console.print(_table(sort, list(REGISTRIES[sort])))
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
    table.add_column("what it is", ratio=2)
    table.add_column("options, with their defaults", ratio=3)
    for entry in entries:
        kind = entry.tags.get("kind")
        summary = entry.summary + (f" [{kind}]" if kind else "")
        table.add_row(entry.name, escape(summary), escape(", ".join(_options(entry))))
    return table


def _options(entry: Entry) -> list[str]:
    return [
        f"{name}: {words.allowed(annotation)}" if default is REQUIRED else f"{name}={_shown(default)}"
        for name, (annotation, default) in entry.parameters.items()
    ]


def _shown(default: object) -> str:
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(list(default)) if isinstance(default, tuple) else str(default)

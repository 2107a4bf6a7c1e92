"""Configuration files that would cost more than they say are refused before they are read.

Three hundred bytes of YAML aliases can stand for gigabytes. They are counted here without being expanded: an alias
counts what its anchor counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ava.errors import InputError

MAX_BYTES = 1 << 20
MAX_NODES = 10_000
"""OmegaConf takes about half a second for that many; the largest configuration of ours has a hundred."""
MAX_DEPTH = 100

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_capped(path: Path) -> str:
    """Read a configuration file, if it is of a size that a configuration can have.

    Raises:
        InputError: it cannot be read, is no YAML, or is too large, too deep or too much once expanded.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise InputError(f"{path} is larger than the {MAX_BYTES:,} bytes a configuration file may have.")
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        check_yaml(text, str(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    return text


@dataclass
class _Open:
    """A collection whose end has not come yet."""

    anchor: str | None
    nodes: int = 1
    depth: int = 0


@dataclass
class _Count:
    """Walks over the events of a file; knows what each anchor stands for."""

    origin: str
    stack: list[_Open] = field(default_factory=lambda: [_Open(None, 0)])
    anchors: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, nodes: int, depth: int, anchor: str | None) -> None:
        top = self.stack[-1]
        top.nodes += nodes
        top.depth = max(top.depth, depth)
        if anchor is not None:
            self.anchors[anchor] = (nodes, depth)
        if sum(part.nodes for part in self.stack) > MAX_NODES:
            raise InputError(f"{self.origin} stands for more than {MAX_NODES:,} values once its aliases are expanded.")
        if len(self.stack) + depth > MAX_DEPTH:
            raise InputError(f"{self.origin} is nested more than {MAX_DEPTH} levels deep.")

    def alias(self, name: str) -> None:
        if name not in self.anchors:
            raise InputError(f"{self.origin}: the alias *{name} is used before its anchor ends.")
        self.add(*self.anchors[name], None)

    def close(self) -> None:
        done = self.stack.pop()
        self.add(done.nodes, done.depth + 1, done.anchor)


def check_yaml(text: str, origin: str) -> None:
    """Count what a YAML text stands for, from its events: nothing is built.

    Args:
        text: the YAML.
        origin: what it is called in messages.

    Raises:
        InputError: more than `MAX_NODES` values once aliases are expanded, or more than `MAX_DEPTH` levels.
        yaml.YAMLError: it is no YAML.
    """
    count = _Count(origin)
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.ScalarEvent):
            count.add(1, 0, event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            count.alias(event.anchor or "")
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(count.stack) > MAX_DEPTH:
                raise InputError(f"{origin} is nested more than {MAX_DEPTH} levels deep.")
            count.stack.append(_Open(event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            count.close()

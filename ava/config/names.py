"""Did you mean ...? The nearest known key to one that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from ava.config.schema import PARTS


def suggest(key: str, tables: Mapping[str, Mapping[str, Any]], root: Sequence[str]) -> str | None:
    """Name the known key that someone who wrote `key` most likely meant.

    The same word in another section comes first (`trainer.lr` -> `optimizer.lr`), then a similar word in the same
    section, then an option of a part that was not chosen, then any similar key.

    Args:
        key: the unknown key, as its full dotted path.
        tables: section -> its known keys.
        root: known keys outside any section.

    Returns:
        A sentence, or None when nothing is close.
    """
    known = [*root, *tables, *(f"{section}.{name}" for section, table in tables.items() for name in table)]
    section, _, word = key.rpartition(".")
    elsewhere = [path for path in known if path.rpartition(".")[2] == word]
    similar = difflib.get_close_matches(word, list(tables.get(section, root)), n=1, cutoff=0.6)
    if elsewhere:
        return _sentence(elsewhere[0])
    if similar:
        return _sentence(f"{section}.{similar[0]}" if section else similar[0])
    owners = [part.name for part in PARTS[section] if word in part.parameters] if section in PARTS else []
    if owners:
        shown = [f"`{section}={owner}`" for owner in owners[:6]] + ["others"] * (len(owners) > 6)
        return f"`{word}` is an option of {', '.join(shown)}."
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.6) if section not in tables else []
    if close:
        return _sentence(close[0])
    leaves = {path.rpartition(".")[2]: path for path in reversed(known)}
    close = difflib.get_close_matches(word, list(leaves), n=1, cutoff=0.8)
    return _sentence(leaves[close[0]]) if close else None


def _sentence(path: str) -> str:
    return f"Did you mean `{path}`?"

"""A file of trainings that were measured: read, and written so that no other process's share is lost.

An entry has `work`, which is the same for the same training, and `made_with`, what computed it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ava.bench import machine
from ava.checkpoint import atomic
from ava.errors import InputError

Entry = dict[str, Any]
Entries = dict[str, Entry]


def identity(entry: Entry) -> str:
    """The same for the same training by the same source."""
    return json.dumps([entry["work"], entry["made_with"]], sort_keys=True)


def read(file: Path, understand: Callable[[Entry], object]) -> Entries:
    """The trainings of a file by their identity; none where there is no file.

    Args:
        file: where they are.
        understand: raises ValueError, KeyError or TypeError where an entry is none of this measurement.

    Raises:
        InputError: the file is not one of this measurement's.
    """
    if not file.exists():
        return {}
    try:
        trainings = json.loads(file.read_text(encoding="utf-8"))["trainings"]
        for entry in trainings:
            understand(entry)
        return {identity(entry): entry for entry in trainings}
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"is no file of this measurement ({type(error).__name__}: {error})."
        raise InputError(problem, key="--json", value=str(file), hint="Name another file, or remove it.") from error


def write(file: Path, entries: Entries, tables: dict[str, Any], understand: Callable[[Entry], object]) -> Entries:
    """Write them with those that stand there already: another process may have measured its share meanwhile.

    Args:
        file: where to.
        entries: trainings by their identity.
        tables: what was made of them, in plain values.
        understand: as of `read`.

    Returns:
        All that stand there now.

    Raises:
        InputError: it cannot be written, or is another measurement's.
    """
    entries = read(file, understand) | entries
    found = {"machine": machine.describe(), "tables": tables, "trainings": list(entries.values())}
    try:
        atomic.write_text(file, json.dumps(found) + "\n")
    except OSError as error:
        raise InputError(f"cannot be written: {error}.", key="--json", value=str(file)) from error
    return entries

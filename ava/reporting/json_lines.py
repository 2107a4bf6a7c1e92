"""Files of one JSON object per line, written as things happen.

JSON has no NaN and no infinity, and a diverged run must still be readable by every JSON parser: they are written as
the texts "nan", "inf" and "-inf", which `float()` reads back in most languages.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ava.errors import InputError

_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(value: Any) -> Any:
    """The value with every float that is not finite as text, in nested dicts, lists and tuples too."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(row: dict[str, Any]) -> dict[str, Any]:
    """A row with "nan", "inf" and "-inf" as floats again."""
    return {key: _NOT_FINITE.get(item, item) if isinstance(item, str) else item for key, item in row.items()}


class JsonLines:
    """Appends rows to a file; each is readable as soon as it is written.

    Args:
        path: the file; made if need be, its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        self._file.write(json.dumps(to_json(row), allow_nan=False) + "\n")
        self._file.flush()

    def force_to_disk(self) -> None:
        """Return once all rows would survive a power cut."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: Path) -> list[dict[str, Any]]:
    """Every row of a file, in order; none where there is no file.

    Raises:
        InputError: a line is no JSON object. The last may be torn: a killed process leaves such a line, it is skipped.
    """
    return [row for _, row in lines(path)]


def lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Each whole line of a file with what it says; for the rest see `read`."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield line, from_json(json.loads(line))
            except (ValueError, AttributeError):
                if not file.read(1):
                    return
                raise InputError(
                    f"{path}, line {number}, is no JSON object: {line[:60]!r}.", hint="Mend or delete that line."
                ) from None

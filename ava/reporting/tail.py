"""What was appended to a file of JSON lines since one looked last: each line is read once, however long the file gets.

    tail = Tail(path)
    for row in tail.new():          # all that there is
    for row in tail.new():          # what came since

For those who only watch: a damaged line is passed over, and a line without its end waits for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ava.reporting.json_lines import from_json


class Tail:
    """A place in a file that grows.

    Args:
        path: the file; need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._offset = path, 0

    def new(self) -> Iterator[dict[str, Any]]:
        """The rows since the last time; all of them where the file has become shorter."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            self._offset = 0 if self.path.stat().st_size < self._offset else self._offset
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                row = _parsed(line)
                if row is not None:
                    yield row


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        return from_json(json.loads(line))
    except (ValueError, AttributeError):
        return None

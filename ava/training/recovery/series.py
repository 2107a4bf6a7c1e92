"""The same small mending, step after step, is told once at its beginning and once at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

GAP = 3
"""Steps without it after which it is over."""


@dataclass
class Row:
    """Steps that were mended in the same way.

    Attributes:
        kind: what was seen.
        action: what was done.
        first: step.
        last: step so far.
        count: of steps.
        least: the smallest factor, of those that have one.
        level: of the ladder.
    """

    kind: str
    action: str
    first: int
    last: int
    count: int = 1
    least: float = 1.0
    level: int = 0


class Series:
    """Rows of mended steps that are under way."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def add(self, step: int, kind: str, action: str, factor: float = 1.0, level: int = 0) -> bool:
        """Note a mended step.

        Returns:
            Whether it is the first of its row, which is to be told by itself.
        """
        row = self._rows.get(kind)
        if row is None:
            self._rows[kind] = Row(kind, action, step, step, least=factor, level=level)
            return True
        row.last, row.count, row.least = step, row.count + 1, min(row.least, factor)
        return False

    def ended(self, step: int) -> list[Row]:
        """Rows of several steps that are over by a step; they are forgotten."""
        if not self._rows:
            return []
        over = [row for row in self._rows.values() if not row.last <= step <= row.last + GAP]
        for row in over:
            del self._rows[row.kind]
        return [row for row in over if row.count > 1]

    def state_dict(self) -> dict[str, Any]:
        """Rows under way, as plain numbers."""
        return {kind: asdict(row) for kind, row in self._rows.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._rows = {kind: Row(**row) for kind, row in state.items()}

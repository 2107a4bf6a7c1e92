"""A picture's rows, in bounded memory: a long run's are merged, neighbours with neighbours, and keep their extremes.

    rows = Thinned(4096)
    rows.add(row)           # 100,000 times
    rows.rows               # 2,048 to 4,096, evenly over the run

Incidents are thinned by kind; those that stay say how many they stand for.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from ava.reporting.stability_marks import STANDS_FOR, name_of

MOST_ROWS, MOST_INCIDENTS = 4096, 400
"""Rows, and incidents of a kind, that are kept."""
_DRAWN = ("step", "kind", "action", "rule", "sign", "to_step")

Row = dict[str, float]


class Thinned:
    """Rows of a log, in the order they came.

    Args:
        most: that are kept; an even number.

    Attributes:
        rows: those that are; of merged ones the last, with the largest of what tells of extremes.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self.rows: list[Row] = []
        self._most, self._stride, self._count = most, 1, 0

    def add(self, row: Row) -> None:
        """Take in a row."""
        if self._count and row["step"] > self.rows[-1]["step"]:
            self.rows[-1] = merged(self.rows[-1], row)
        else:
            self.rows.append(row)
            self._count = 0
        self._count = (self._count + 1) % self._stride
        if len(self.rows) > self._most:
            self._halve()

    def go_back(self, step: int) -> None:
        """The run went back to a step: an empty row says so to `taken_back`."""
        if self.rows and self.rows[-1]["step"] > step:
            self.rows.append({"step": step + 1})
            self._count = 0

    def _halve(self) -> None:
        halved: list[Row] = []
        is_open = False
        for row in self.rows:
            is_open = is_open and row["step"] > halved[-1]["step"] and len(row) > 1
            if is_open:
                halved[-1] = merged(halved[-1], row)
            else:
                halved.append(row)
            is_open = not is_open and len(row) > 1
        self.rows, self._stride, self._count = halved, 2 * self._stride, 0


def merged(first: Row, second: Row) -> Row:
    """Two rows as one, at the step of the second."""
    extremes = [name for name in first.keys() & second.keys() if _is_extreme(name)]
    return first | second | {name: _larger(first[name], second[name]) for name in extremes}


def _is_extreme(name: str) -> bool:
    return name in ("loss_max", "grad_norm_max") or name.startswith("hindrance")


def _larger(a: float, b: float) -> float:
    """What is no number is worse than any."""
    return a if a >= b or a != a else b


class ThinnedIncidents:
    """Incidents, of each kind evenly from the first to the last."""

    def __init__(self) -> None:
        self._by_name: dict[str, list[dict[str, Any]]] = {}

    def add(self, incident: dict[str, Any]) -> None:
        """Take in an incident; of it only what is drawn."""
        slim = {key: incident[key] for key in _DRAWN if key in incident}
        kept = self._by_name.setdefault(name_of(slim), [])
        kept.append(slim)
        if len(kept) > MOST_INCIDENTS:
            # The last of all stays, so that the picture reaches up to it.
            pairs = zip(kept[:-1:2], kept[1:-1:2], strict=True)
            kept[:] = [{**a, STANDS_FOR: a.get(STANDS_FOR, 1) + b.get(STANDS_FOR, 1)} for a, b in pairs] + kept[-1:]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Those that are kept, by kind."""
        return list(chain.from_iterable(self._by_name.values()))

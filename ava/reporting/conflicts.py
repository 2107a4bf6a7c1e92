"""What a log says of how the objectives of a run pulled against each other.

It has of each logged step `surgery/cosine/A/B`, the cosine between the gradients of objectives A and B, and
`surgery/weight/A`, what A's gradient was multiplied with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]
_COSINE, _WEIGHT = "surgery/cosine/", "surgery/weight/"


@dataclass(frozen=True)
class Conflicts:
    """What the rows of a log say of T objectives; nan where a row says nothing.

    Attributes:
        names: of the objectives.
        steps: of the rows.
        cosines: (A, B) -> one value for each row.
        weights: A -> one value for each row; empty where none are logged.
    """

    names: list[str]
    steps: list[float]
    cosines: dict[tuple[str, str], list[float]]
    weights: dict[str, list[float]]

    def mean(self, pair: tuple[str, str]) -> float:
        """The mean cosine over the rows that have a finite one; nan where none has."""
        finite = [value for value in self.cosines[pair] if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else math.nan


def is_of_conflicts(row: Row) -> bool:
    """Whether a row says something of them."""
    return any(key.startswith((_COSINE, _WEIGHT)) for key in row)


def read_conflicts(rows: Sequence[Row]) -> Conflicts:
    """What the rows say, with objectives in the order in which they first come."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    weighed = [key.removeprefix(_WEIGHT) for key in keys if key.startswith(_WEIGHT)]
    pairs = {key: _pair(key.removeprefix(_COSINE), weighed) for key in keys if key.startswith(_COSINE)}
    names = list(dict.fromkeys([*weighed, *(name for pair in pairs.values() for name in pair)]))
    return Conflicts(
        names,
        [row["step"] for row in rows],
        {pair: _column(rows, key) for key, pair in pairs.items()},
        {name: _column(rows, _WEIGHT + name) for name in weighed},
    )


def _column(rows: Sequence[Row], key: str) -> list[float]:
    return [float(row.get(key, math.nan)) for row in rows]


def _pair(text: str, names: list[str]) -> tuple[str, str]:
    """The two objectives of "A/B". Names may have slashes of their own: known ones decide, else the middle slash."""
    places = [place for place, character in enumerate(text) if character == "/"]
    splits = [(text[:place], text[place + 1 :]) for place in places] or [(text, "")]
    known = [split for split in splits if split[0] in names and split[1] in names]
    return known[0] if known else splits[len(splits) // 2]

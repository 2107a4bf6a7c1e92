"""Incidents as marks of a picture, and which lines of a log still hold after steps were taken back."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any, NamedTuple

MOST = 200
"""Marks of one kind that are drawn; of more, so many are taken evenly from the first to the last."""


STANDS_FOR = "stands_for"
"""Of an incident that is left of several: how many they were."""
_WITH_SIGN = ("bad_start", "budget_spent")
"""Kinds that say what was seen: the start was too high, stuck, or of too high a rate; the cause that would not go."""


class Mark(NamedTuple):
    """One incident in the picture.

    Attributes:
        step: where it stands.
        letter: of its kind and action.
        number: the place of that letter in the alphabet, from 0.
    """

    step: float
    letter: str
    number: int


def name_of(incident: dict[str, Any]) -> str:
    """Its kind and what was done: "loss_outlier: skip"; of advice, which rule gave it."""
    if incident["kind"] == "advice":
        return f"advice: {incident.get('rule', '?')}"
    sign = f" ({incident['sign']})" if incident["kind"] in _WITH_SIGN and incident.get("sign") else ""
    return f"{incident['kind']}{sign}: {incident['action']}"


def letters(incidents: Sequence[dict[str, Any]]) -> dict[str, tuple[str, int]]:
    """Letter -> the name it stands for, and how many incidents have it; in the order in which they came up.

    Sorts beyond the 26th share the letter Z.
    """
    counts: dict[str, int] = {}
    for one in incidents:
        counts[name_of(one)] = counts.get(name_of(one), 0) + one.get(STANDS_FOR, 1)
    names = list(counts)
    last = len(string.ascii_uppercase) - 1
    told = {string.ascii_uppercase[i]: (name, counts[name]) for i, name in enumerate(names[: last + 1])}
    if len(names) > last + 1:
        told["Z"] = ("others", sum(counts[name] for name in names[last:]))
    return told


def grouped(incidents: Sequence[dict[str, Any]]) -> list[Mark]:
    """The marks to draw; at most one of a kind at a step."""
    order: dict[str, set[float]] = {}
    for one in incidents:
        order.setdefault(name_of(one), set()).add(float(one["step"]))
    marks: list[Mark] = []
    for number, steps in enumerate(order.values()):
        number = min(number, len(string.ascii_uppercase) - 1)
        places = sorted(steps)
        some = places if len(places) <= MOST else [places[i * (len(places) - 1) // (MOST - 1)] for i in range(MOST)]
        marks += [Mark(step, string.ascii_uppercase[number], number) for step in some]
    return marks


def taken_back(rows: Sequence[dict[str, float]]) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The rows that hold, and those of steps to which a later row went back; each in order."""
    kept: list[dict[str, float]] = []
    dropped: list[dict[str, float]] = []
    lowest = float("inf")
    for row in reversed(rows):
        (kept if row["step"] < lowest else dropped).append(row)
        lowest = min(lowest, row["step"])
    return kept[::-1], dropped[::-1]

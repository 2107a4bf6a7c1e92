"""At which steps a schedule is looked at, and where its phases end.

Steps are counted as the metrics count them, from 1. Up to `EVERY` steps all are looked at; of longer trainings
`SAMPLES`, and the ends of the phases are searched between them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ava.reporting.schedule_curves import Span

EVERY, SAMPLES = 20_000, 1_000


def spread(first: int, last: int, count: int) -> list[int]:
    """At most `count` steps in even distances, both ends among them."""
    places = np.linspace(first, last, min(last - first + 1, count))
    return sorted({round(float(place)) for place in places})


def find_spans(phase: Callable[[int], str], total: int) -> list[Span]:
    """The phases in order, their ends exact to the step unless two of them lie between two steps looked at.

    Args:
        phase: of a step, 1 <= step <= total.
        total: the last step.
    """
    steps = spread(1, total, EVERY if total <= EVERY else SAMPLES)
    phases = [phase(step) for step in steps]
    spans, first = list[Span](), 1
    for (left, right), (before, after) in zip(pairwise(steps), pairwise(phases), strict=True):
        if before != after:
            begin = _change(phase, left, right)
            spans.append(Span(before, first, begin - 1))
            first = begin
    return [*spans, Span(phases[-1], first, total)]


def _change(phase: Callable[[int], str], left: int, right: int) -> int:
    """The first step after `left` in another phase, if there is one change up to `right`."""
    before, between = phase(left), range(left, right + 1)
    return between[bisect_left(between, True, key=lambda step: phase(step) != before)]


def looked_at(total: int, spans: Sequence[Span]) -> list[int]:
    """The steps to look at before anything is known of the curves."""
    return list(range(1, total + 1)) if total <= EVERY else sorted({*spread(1, total, SAMPLES), *corners(spans)})


def corners(spans: Sequence[Span]) -> set[int]:
    """The first and the last step of every phase."""
    return {step for span in spans for step in (span.first, span.last)}

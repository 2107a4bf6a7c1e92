"""What the curves of one or several range tests say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ava.optimization.learning_rate.finder.probes import Probe, suggest_from
from ava.optimization.learning_rate.finder.range_test import Curve, LRFinderConfig, MovingAverage
from ava.optimization.learning_rate.finder.suggestions import NoSuggestion, Suggestion, suggest


@dataclass(frozen=True)
class Findings:
    """The result of a search.

    Attributes:
        curves: one a seed, over the same rates.
        centre: their median, step by step; with one seed its own curve.
        suggestions: method -> suggestion, from the centre; empty where there is none.
        refusal: why there is none.
        of_seeds: the curve's rate for each seed alone, by the chosen method (the valley's for probes); None where that
            curve says nothing.
        method: the chosen one.
        probes: the short trainings around the valley's rate, if there were any.
    """

    curves: tuple[Curve, ...]
    centre: Curve
    suggestions: dict[str, Suggestion]
    refusal: NoSuggestion | None
    of_seeds: tuple[float | None, ...]
    method: str
    probes: tuple[Probe, ...] = ()

    def with_probes(self, probes: Sequence[Probe]) -> Findings:
        """The same, with what short trainings around the valley's rate came to."""
        try:
            suggestions, refusal = {"probes": suggest_from(probes), **self.suggestions}, None
        except NoSuggestion as error:
            suggestions, refusal = self.suggestions, error
        return replace(self, suggestions=suggestions, refusal=refusal, method="probes", probes=tuple(probes))

    @property
    def chosen(self) -> Suggestion:
        """The suggestion of the chosen method.

        Raises:
            NoSuggestion: there is none; says why, and what to try.
        """
        if self.refusal is not None:
            raise self.refusal
        return self.suggestions[self.method]

    @property
    def band(self) -> tuple[list[float], list[float]]:
        """The lowest and the highest finite loss of the seeds at each step of the centre."""
        columns = [[c.loss[k] for c in self.curves if k < len(c.loss)] for k in range(len(self.centre.loss))]
        finite = [[loss for loss in column if math.isfinite(loss)] or [math.nan] for column in columns]
        return [min(column) for column in finite], [max(column) for column in finite]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers and words.

        Returns:
            `lr`, `loss`, `smoothed` (lists, of the centre), `stopped` ("covered", "diverged" or "not finite"),
            `suggestions` and `reasons` (method -> rate, sentence), `method`, `suggestion`, `reason` (of the chosen one;
            where there is none, None and why), `probes` (of each: `lr`, `loss`), and `seeds` (of each: `loss`,
            `smoothed`, `stopped`, `suggestion`).
        """
        chosen = None if self.refusal is not None else self.chosen
        return {
            "lr": list(self.centre.lr),
            "loss": list(self.centre.loss),
            "smoothed": list(self.centre.smoothed),
            "stopped": self.centre.stopped,
            "suggestions": {name: one.lr for name, one in self.suggestions.items()},
            "reasons": {name: one.reason for name, one in self.suggestions.items()},
            "method": self.method,
            "suggestion": None if chosen is None else chosen.lr,
            "reason": str(self.refusal) if chosen is None else chosen.reason,
            "probes": [vars(probe) for probe in self.probes],
            "seeds": [
                {"loss": list(c.loss), "smoothed": list(c.smoothed), "stopped": c.stopped, "suggestion": own}
                for c, own in zip(self.curves, self.of_seeds, strict=True)
            ],
        }


def examine(curves: Sequence[Curve], config: LRFinderConfig) -> Findings:
    """Read the curves of one or several range tests.

    Args:
        curves: at least one; all of the range in `config`.
        config: what was tested; its method is the chosen one, the valley's where probes are to follow.

    Returns:
        The findings; a refusal is part of them, so that the curve can be looked at.
    """
    centre = curves[0] if len(curves) == 1 else _centre(curves, config.smoothing_factor)
    suggestions, refusal = _read(centre)
    method = "valley" if config.method == "probes" else config.method
    own = tuple(found[method].lr if (found := _read(curve)[0]) else None for curve in curves)
    return Findings(tuple(curves), centre, suggestions, refusal, own, method)


def _read(curve: Curve) -> tuple[dict[str, Suggestion], NoSuggestion | None]:
    try:
        return suggest(curve.lr, curve.loss), None
    except NoSuggestion as refusal:
        return {}, refusal


def _centre(curves: Sequence[Curve], weight: float) -> Curve:
    """The median curve, as far as it is finite: a seed that stopped counts as infinite from there on."""
    longest = max(curves, key=lambda curve: len(curve.lr))
    losses = np.full((len(curves), len(longest.lr)), np.inf)
    for row, curve in zip(losses, curves, strict=True):
        row[: len(curve.loss)] = [loss if math.isfinite(loss) else math.inf for loss in curve.loss]
    median = np.median(losses, axis=0)
    count = max(1, int(np.isfinite(median).sum()))
    average = MovingAverage(weight)
    loss = tuple(median[:count].tolist())
    stopped = sorted(curves, key=lambda curve: len(curve.loss))[len(curves) // 2].stopped
    return Curve(longest.lr[:count], loss, tuple(map(average.take, loss)), stopped)

"""Short trainings around a suggestion: what a rate does when it is kept, which a rising rate does not show.

A range test passes every rate in a few steps. Some optimizers bear a high rate for so long and no longer, others need
a higher one than the curve's fall tells. So the rate that the curve suggests, one half a power of ten below it and one
as far above are each trained with a 1cycle of a few steps, from the same start. Between them the final loss is taken
along straight lines over the log of the rate. The suggestion lies a third of the way through the rates that end within
3 % of the best: short trainings bear higher rates than long ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ava.optimization.learning_rate.finder.suggestions import NoSuggestion, Suggestion
from ava.optimization.learning_rate.schedules.onecycle import onecycle

FACTORS = (10**-0.5, 1.0, 10**0.5)
"""The probes' rates over the one in their middle."""
AS_GOOD, SHARE = 0.03, 1 / 3
"""By how much more a rate's loss may end to be as good as the best, and how far through those the suggestion lies."""


@dataclass(frozen=True)
class Probe:
    """A short training.

    Attributes:
        lr: its peak rate.
        loss: the mean over its last fifth; infinite where one was not finite.
    """

    lr: float
    loss: float


def course_of(lr: float, num_steps: int) -> list[tuple[float, float]]:
    """The rate and the momentum of each step of a probe."""
    factors = [onecycle(step, num_steps) for step in range(num_steps)]
    return [(lr * f.lr, f.momentum or 0.0) for f in factors]


def probe_of(lr: float, losses: Sequence[float], num_steps: int) -> Probe:
    """What a probe came to; one that broke off has too few losses."""
    last = losses[-max(1, num_steps // 5) :]
    is_whole = len(losses) == num_steps and all(math.isfinite(loss) for loss in last)
    return Probe(lr, float(np.mean(last)) if is_whole else math.inf)


def suggest_from(probes: Sequence[Probe]) -> Suggestion:
    """Read the probes.

    Args:
        probes: of rising rates.

    Raises:
        NoSuggestion: none ended with a finite loss.
    """
    known = [probe for probe in probes if math.isfinite(probe.loss)]
    if not known:
        tried = ", ".join(f"{probe.lr:.2g}" for probe in probes)
        raise NoSuggestion(
            f"no short training at {tried} ended with a finite loss.", hint="Warm up longer, or clip the gradients."
        )
    x = np.linspace(math.log10(known[0].lr), math.log10(known[-1].lr), 301)
    loss = np.interp(x, [math.log10(probe.lr) for probe in known], [probe.loss for probe in known])
    best = int(np.argmin(loss))
    is_good = loss <= loss[best] + AS_GOOD * abs(loss[best])
    worse = np.flatnonzero(~is_good)
    low = x[max((k + 1 for k in worse if k < best), default=0)]
    high = x[min((k - 1 for k in worse if k > best), default=len(x) - 1)]
    tried = ", ".join(f"{probe.lr:.2g}" for probe in known)
    return Suggestion("probes", float(10 ** (low + SHARE * (high - low))), (
        f"Short trainings at {tried}, and the lines between their losses, are within {AS_GOOD:.0%} of the best from "
        f"{10**low:.2g} to {10**high:.2g}: a third of the way through that."
    ))  # fmt: skip

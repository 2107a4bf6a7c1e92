"""The same samples stand in one incident after another: it is the data."""

from __future__ import annotations

import math
from collections import Counter

from ava.registry import PositiveFloat, PositiveInt, advice
from ava.training.history import Advice, History

_NAMED = 5


@advice(name="bad_samples")
class BadSamples:
    """Samples that come up in more incidents than chance allows.

    Args:
        incidents: in which a sample stands, at least.
        chance: the most samples expected to stand in as many by accident.
    """

    def __init__(self, /, incidents: PositiveInt = 3, chance: PositiveFloat = 0.05) -> None:
        self._incidents, self._chance = incidents, chance
        self._known = 0
        self._advice: Advice | None = None

    def __call__(self, history: History) -> Advice | None:
        """Look at the last incidents, if there are new ones.

        Args:
            history: the run so far.
        """
        if history.num_incidents != self._known:
            self._known, self._advice = history.num_incidents, self._concluded(history)
        return self._advice

    def _concluded(self, history: History) -> Advice | None:
        seen = {int(one["step"]): set(one["samples"]) for one in history.incidents if one.get("samples")}
        counts = Counter(sample for samples in seen.values() for sample in samples)
        num_samples = history.setting.num_samples
        most = max(counts.values(), default=0)
        if most < self._incidents or not num_samples:
            return None
        share = min(max(map(len, seen.values())) / num_samples, 1.0)
        if num_samples * at_least(most, len(seen), share) > self._chance:
            return None
        often = sorted(sample for sample, count in counts.items() if count == most)
        more = f" and {len(often) - _NAMED} more" if len(often) > _NAMED else ""
        shown = ", ".join(map(str, often[:_NAMED])) + more
        text = (
            f"the same samples of the training data stand in {most} of {len(seen)} incidents: {shown}: look at them, "
            f"and mend or remove them"
        )
        return Advice(text, {"num_samples": len(often), "incidents": most}, subject=shown)


def at_least(count: int, trials: int, share: float) -> float:
    """The binomial probability of `count` or more successes.

        sum_k exp(log (n choose k) + k log p + (n - k) log(1 - p)),  k = count ... n

    Args:
        count: successes.
        trials: n.
        share: p, in (0, 1].
    """
    if share >= 1:
        return 1.0
    log, log_other, whole = math.log(share), math.log1p(-share), math.lgamma(trials + 1)
    terms = (
        whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log + (trials - k) * log_other
        for k in range(count, trials + 1)
    )  # fmt: skip
    return min(math.fsum(map(math.exp, terms)), 1.0)

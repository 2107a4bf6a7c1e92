"""Clip: a limit on how long one parameter's gradient may be."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, minimum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage("gradient")
def clip_length(t: Operands, h: Hyperparameters) -> None:
    """Each parameter's gradient at most `clip_threshold` long: g <- g min(c / |g|, 1)."""
    length = sqrt(t.sum(t.g * t.g))
    t.g = t.g * minimum(h.clip_threshold / maximum(length, 1e-30), 1.0)

"""Constraint: where the parameter may be after the step."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, minimum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage("constraint", Slot("slow_weights", start="p", exact=True), counts=True)
def look_ahead(t: Operands, h: Hyperparameters) -> None:
    """Lookahead: every k steps the slow weights go a share of the way to the fast ones, which restart from there.

        every k: s <- s + a (p - s);  p <- s

    Zhang et al. 2019, https://arxiv.org/abs/1907.08610.
    """
    is_due = t.step % h.lookahead == 0
    met = t.slow_weights + h.lookahead_alpha * (t.p - t.slow_weights)
    t.slow_weights = where(is_due, met, t.slow_weights)
    t.p = where(is_due, met, t.p)


@stage("constraint")
def limit_norm(t: Operands, h: Hyperparameters) -> None:
    """Each row (what leads to one output; of a vector, the whole) has at most the length `max_norm`."""
    length = sqrt(t.row_mean(t.p * t.p) * t.cols)
    t.p = t.p * minimum(h.max_norm / maximum(length, 1e-30), 1.0)


@stage("constraint")
def unit_rows(t: Operands, h: Hyperparameters) -> None:
    """Each row (what leads to one output; of a vector, the whole) has the length 1."""
    t.p = t.p / maximum(sqrt(t.row_mean(t.p * t.p) * t.cols), 1e-30)


@stage("constraint")
def clamp_below_zero(t: Operands, h: Hyperparameters) -> None:
    """No weight is negative."""
    t.p = maximum(t.p, 0.0)

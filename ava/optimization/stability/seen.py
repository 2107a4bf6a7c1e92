"""What detectors are given to judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ava.optimization.stability.baseline import Baseline
from ava.optimization.stability.operands import clamp, maximum, minimum, where


@dataclass(slots=True)
class Seen:
    """One step as a detector sees it. Every number is a Python float, or a 0-dim tensor on an accelerator; comparisons
    give what `where` of `ava.optimization.optimizers.arithmetic` takes. Do not branch on them with `if`.

    Attributes:
        gradient: log gradient norm against what was expected, before this step is learnt.
        loss: the same of the log loss; `is_known` is false where there is no loss.
        is_finite: whether gradient norm and loss are.
        is_zero: whether the gradient norm is exactly 0.
        sigmas: deviations above which something is a spike, adapted to threshold and phase.
        has_loss: whether a loss was given; a plain bool.
    """

    gradient: Baseline
    loss: Baseline
    is_finite: Any
    is_zero: Any
    sigmas: Any
    has_loss: bool


def severity_of(signal: Baseline, sigmas: Any) -> Any:
    """How far above a signal is, in [0, 1]: 0 up to 3 deviations, 0.5 and more from where an alarm starts.

    Args:
        signal: after its alarm was decided and before the next step.
        sigmas: deviations at which alarms start.
    """
    excess = clamp(0.5 * signal.z / sigmas, 0.0, 1.0)
    below = where(signal.is_warm, where(signal.z > 3.0, minimum(excess, 0.49), 0.0 * excess), 0.0 * excess)
    acute = maximum(maximum(signal.alarm, signal.moved), signal.shifted)
    return where(acute > 0, maximum(excess, 0.5), below)

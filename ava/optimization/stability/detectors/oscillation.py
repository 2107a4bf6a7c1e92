"""Loss or gradient norm going to and fro."""

from __future__ import annotations

from typing import Any

from ava.optimization.stability.baseline import WINSOR, Baseline
from ava.optimization.stability.operands import clamp, maximum, sqrt, where
from ava.optimization.stability.seen import Seen
from ava.registry import PositiveFloat, detector

PAST = 0.95
"""Weight of the past in both moments: about 20 steps."""
LEAST, MOST = 0.5, 0.9
"""Of the anticorrelation: where severity begins, and where it is whole."""
WINDOW = 20.0
"""Surprises before which nothing is said."""


@detector
class Oscillation:
    """Oscillation: successive surprises of the loss (or, without one, of the gradient norm) alternate in sign.

        rho = -mean(r_t r_(t-1)) / mean(r_t^2)
        severity = clip((rho - 0.5) / 0.4, 0, 1) where the surprises are larger than `amplitude`, else 0

    It warns. Independent noise has rho of about 0, a rate at the edge of stability comes near 1.

    Args:
        amplitude: root mean square of the surprises, as a share of the loss, below which they are not worth a word.
    """

    def __init__(self, /, amplitude: PositiveFloat = 0.1) -> None:
        self.amplitude = amplitude
        self.memory: dict[str, Any] = {"last": 0.0, "product": 0.0, "square": 0.0, "count": 0.0}

    def __call__(self, seen: Seen, /) -> Any:
        """Take up the step's surprise; the severity, in [0, 1]."""
        signal = seen.loss if seen.has_loss else seen.gradient
        last, product, square, count = (self.memory[name] for name in ("last", "product", "square", "count"))
        surprise = _winsorised(signal)
        learns = signal.is_known & signal.is_warm
        product = where(learns, PAST * product + (1.0 - PAST) * surprise * last, product)
        square = where(learns, PAST * square + (1.0 - PAST) * surprise * surprise, square)
        count = where(learns, count + 1.0, count)
        self.memory |= {"last": where(learns, surprise, last), "product": product, "square": square, "count": count}
        rho = -product / maximum(square, 1e-30)
        severity = clamp((rho - LEAST) / (MOST - LEAST), 0.0, 1.0)
        return where((sqrt(square) > self.amplitude) & (count > WINDOW), severity, 0.0 * severity)


def _winsorised(signal: Baseline) -> Any:
    limit = WINSOR * signal.deviation
    return clamp(signal.residual, -limit, limit)

"""The gradient noise scale: from which batch size on more samples hardly improve the gradient.

    B_simple = tr(Sigma) / |G|^2

G is the gradient of the whole distribution and Sigma the covariance of one sample's. Far below B_simple twice the batch
takes almost half the steps, far above it the same number. The squared norm of a mean over B samples expects
|G|^2 + tr(Sigma) / B, so two batch sizes give both numbers. Each pair is very noisy: numerator and denominator are
averaged apart over steps, and only then divided.

    trace, square = noise_scale(small_square=3.1, small_size=32, big_square=1.2, big_size=256)
    noise = NoiseScale()
    noise.update(trace, square)
    noise.value()

`small_batch.py` sees the gradient of the small batch in a training step.

Reference: McCandlish et al. 2018, An Empirical Model of Large-Batch Training, appendix A,
https://arxiv.org/abs/1812.06162
"""

from __future__ import annotations

import math

from ava.errors import InputError


def noise_scale(small_square: float, small_size: float, big_square: float, big_size: float) -> tuple[float, float]:
    """Unbiased estimates of tr(Sigma) and |G|^2 from mean gradients over two numbers of samples.

        tr(Sigma) = (|G_b|^2 - |G_B|^2) / (1/b - 1/B),    |G|^2 = (B |G_B|^2 - b |G_b|^2) / (B - b)

    Args:
        small_square: |G_b|^2, of the mean gradient over `small_size` samples.
        small_size: b; over several small batches with the mean of their squares, the harmonic mean of their sizes.
        big_square: |G_B|^2.
        big_size: B, larger than b.

    Returns:
        (tr(Sigma), |G|^2); one draw of either may be negative.

    Raises:
        InputError: not 0 < b < B.
    """
    if not 0 < small_size < big_size:
        raise InputError(
            f"the noise scale needs two batch sizes, 0 < small < big; not {small_size} and {big_size}.",
            hint="Use trainer.accumulate=2 or more, or several ranks.",
        )
    trace = (small_square - big_square) / (1 / small_size - 1 / big_size)
    square = (big_square * big_size - small_square * small_size) / (big_size - small_size)
    return trace, square


class NoiseScale:
    """Averages of tr(Sigma) and |G|^2 over steps, and their ratio.

    Args:
        decay: weight of the past in both averages, at each pair of estimates.

    Raises:
        InputError: `decay` is not in [0, 1).
    """

    def __init__(self, decay: float = 0.95) -> None:
        if not 0 <= decay < 1:
            raise InputError("must lie in [0, 1).", key="decay", value=decay, hint="0.95 averages about 20 draws.")
        self.decay = decay
        self._trace = self._square = 0.0

    def update(self, trace: float, square: float) -> None:
        """Take in estimates of tr(Sigma) and |G|^2; a pair that is not finite changes nothing."""
        if math.isfinite(trace) and math.isfinite(square):
            self._trace += (1 - self.decay) * (trace - self._trace)
            self._square += (1 - self.decay) * (square - self._square)

    def value(self) -> float | None:
        """B_simple, in what batch sizes were counted in; None before the first pair, or where noise hides |G|^2.

        Both averages start from 0 with the same weights, so the bias of the start cancels.
        """
        return self._trace / self._square if self._square > 0 and self._trace >= 0 else None

    def state_dict(self) -> dict[str, float]:
        """Both averages."""
        return {"trace": self._trace, "square": self._square}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from averages that were kept."""
        self._trace, self._square = float(state["trace"]), float(state["square"])

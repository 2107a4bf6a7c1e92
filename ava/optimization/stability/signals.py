"""Measured numbers on the scale on which they are judged: a doubling is as far up as halving is down."""

from __future__ import annotations

from typing import Any

from ava.optimization.stability.operands import absolute, clamp, exp, log, maximum, minimum, sign, sqrt

SMALLEST, LARGEST = 1e-30, 1e30
"""What lies between them has a logarithm, and a square, in float32 too."""
SHARE = 0.2
"""The share of a loss's usual size below which it counts linearly."""


def is_finite(x: Any) -> Any:
    """Whether it is a number, also of float32."""
    return absolute(x) <= 3.4e38


def log_norm(norm: Any) -> Any:
    """The logarithm of a norm; that of the smallest for 0."""
    return log(maximum(norm, SMALLEST))


def log_loss(loss: Any, size: Any) -> Any:
    """A loss as a logarithm, but smooth through 0, for losses may be negative.

        asinh(l / 2c) + log c,  c = 0.2 * size

    which is log l within 1 % of a doubling where l > size, linear where |l| < c, and -log |l| + 2 log c far below 0.

    Args:
        loss: finite.
        size: the usual magnitude of the loss.
    """
    unit = maximum(SHARE * size, SMALLEST)
    ratio = minimum(absolute(loss) / (2.0 * unit), 1e37)
    # The square of what is larger is beyond float32; there asinh(r) is log(2 r) to the last digit.
    near = minimum(ratio, 1e15)
    asinh = log(near + sqrt(near * near + 1.0)) + log(maximum(ratio * 1e-15, 1.0))
    return sign(loss) * asinh + log(unit)


def to_loss(x: Any, size: Any) -> Any:
    """The loss whose `log_loss` is `x`."""
    unit = maximum(SHARE * size, SMALLEST)
    ratio = clamp(x - log(unit), -80.0, 80.0)
    return unit * (exp(ratio) - exp(-ratio))

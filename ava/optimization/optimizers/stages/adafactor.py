"""Adafactor: a second moment in two vectors, clipped updates, and a rate relative to the weights."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, minimum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, stage
from ava.optimization.optimizers.stages.direction import divide_atan2


def _decay(t: Operands, h: Hyperparameters) -> Operand:
    """b2 = 1 - t^decay_rate: 0 at the first step, so that the moment needs no correction of its start."""
    return 1 - t.step**h.decay_rate


@stage(
    "moments",
    Slot("exp_avg_sq_row", signed=False, shape="row"),
    Slot("exp_avg_sq_col", signed=False, shape="column"),
    counts=True,
)
def factored_mean_square(t: Operands, h: Hyperparameters) -> None:
    """The mean square of a matrix from its rows' and columns'.

        R <- b2 R + (1 - b2) row mean(g^2 + eps1), C likewise by columns;  u = g, den = sqrt(R / mean R) sqrt(C)

    Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235.
    """
    beta2 = _decay(t, h)
    square = t.g * t.g + h.eps[0]
    t.exp_avg_sq_row = beta2 * t.exp_avg_sq_row + (1 - beta2) * t.row_mean(square)
    t.exp_avg_sq_col = beta2 * t.exp_avg_sq_col + (1 - beta2) * t.col_mean(square)
    t.u = t.g
    t.den = sqrt(t.exp_avg_sq_row / t.col_mean(t.exp_avg_sq_row)) * sqrt(t.exp_avg_sq_col)


@stage("moments", Slot("exp_avg_sq", signed=False), counts=True)
def growing_mean_square(t: Operands, h: Hyperparameters) -> None:
    """The same of a vector, in full: v <- b2 v + (1 - b2) (g^2 + eps1); u = g, den = sqrt(v)."""
    beta2 = _decay(t, h)
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * (t.g * t.g + h.eps[0])
    t.u = t.g
    t.den = sqrt(t.exp_avg_sq)


@stage("direction", variants={"atan2": divide_atan2})
def divide_plainly(t: Operands, h: Hyperparameters) -> None:
    """Division by what has its eps inside the root: u <- u / den."""
    t.u = t.u / t.den


@stage("direction")
def clip_root_mean_square(t: Operands, h: Hyperparameters) -> None:
    """No update larger than usual: u <- u / max(1, rms u / clip_threshold)."""
    t.u = t.u * (1 / maximum(sqrt(t.mean(t.u * t.u)) / h.clip_threshold, 1.0))


@stage("moments", counts=True)
def relative_rate(t: Operands, h: Hyperparameters) -> None:
    """A rate without a setting: lr = min(1e-2, 1 / sqrt(t))."""
    t.lr = minimum(1 / sqrt(t.step), 1e-2)


@stage("moments", counts=True)
def rising_relative_rate(t: Operands, h: Hyperparameters) -> None:
    """The same from almost nothing: lr = min(1e-6 t, 1 / sqrt(t)); the two meet at t = 10,000."""
    t.lr = minimum(1e-6 * t.step, 1 / sqrt(t.step))


@stage("moments")
def scale_by_weights(t: Operands, h: Hyperparameters) -> None:
    """Steps in proportion to the weights: lr <- lr max(eps2, rms p)."""
    t.lr = t.lr * maximum(sqrt(t.mean(t.p * t.p)), h.eps[1])


@stage("direction", Slot("exp_avg"))
def mean_of_steps(t: Operands, h: Hyperparameters) -> None:
    """Momentum of whole steps, each at the rate of its own time: u <- m <- b1 m + (1 - b1) lr u."""
    t.exp_avg = h.beta1 * t.exp_avg + ((1 - h.beta1) * t.lr) * t.u
    t.u = t.exp_avg


@stage("write")
def subtract(t: Operands, h: Hyperparameters) -> None:
    """Of an update that has its rate already: p <- p - u."""
    t.p = t.p - t.u

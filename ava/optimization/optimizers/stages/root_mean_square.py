"""Gradients over the root of their mean or summed square: RMSprop and Adagrad."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage("moments", Slot("square_avg", signed=False))
def mean_square(t: Operands, h: Hyperparameters) -> None:
    """The running mean of squares: v <- alpha v + (1 - alpha) g^2; u = g, den = sqrt(v)."""
    t.square_avg = h.alpha * t.square_avg + (1 - h.alpha) * t.g * t.g
    t.u = t.g
    t.den = sqrt(t.square_avg)


# Compressed, the difference of the two would be what the compression lost.
@stage("moments", Slot("square_avg", signed=False, exact=True), Slot("grad_avg", exact=True))
def centred_mean_square(t: Operands, h: Hyperparameters) -> None:
    """The running variance: v as in `mean_square`, a <- alpha a + (1 - alpha) g; u = g, den = sqrt(v - a^2)."""
    t.square_avg = h.alpha * t.square_avg + (1 - h.alpha) * t.g * t.g
    t.grad_avg = h.alpha * t.grad_avg + (1 - h.alpha) * t.g
    t.u = t.g
    # Rounding can leave less than nothing where the gradient does not vary.
    t.den = sqrt(maximum(t.square_avg - t.grad_avg * t.grad_avg, 0.0))


@stage("direction", Slot("momentum_buffer"))
def momentum_of_updates(t: Operands, h: Hyperparameters) -> None:
    """Momentum of what is already divided: u <- b <- mu b + u."""
    t.momentum_buffer = h.momentum * t.momentum_buffer + t.u
    t.u = t.momentum_buffer


@stage("moments", Slot("sum_of_squares", signed=False, start="initial_accumulator_value"))
def sum_of_squares(t: Operands, h: Hyperparameters) -> None:
    """All squares since the start: S <- S + g^2; u = g, den = sqrt(S)."""
    t.sum_of_squares = t.sum_of_squares + t.g * t.g
    t.u = t.g
    t.den = sqrt(t.sum_of_squares)


@stage("moments", counts=True)
def anneal(t: Operands, h: Hyperparameters) -> None:
    """A rate that falls with the steps: lr <- lr / (1 + (t - 1) lr_decay)."""
    t.lr = t.lr / (1 + (t.step - 1) * h.lr_decay)

"""Schedule-Free: an average of the iterates does what a falling rate would.

    y = (1 - beta) z + beta x     the parameters while training: where gradients are taken
    z <- z - lr u                 the base optimizer's iterates
    x <- (1 - c) x + c z          their average: the weights to evaluate and to keep

Only y and z are stored; x = y + (1 - 1/beta) (z - y). With u at y, eliminating x gives

    y <- y + c (z - y) + lr (beta (1 - c) - 1) u

The average's weights are c = w / sum w, w = k^r max(lr)^power. Defazio et al. 2024, https://arxiv.org/abs/2405.15682.

A sentence of these is known by its word with the variant "average": the sentence of that one stage turns y into x.
"""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, minimum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, stage

_Z = Slot("z", start="p", exact=True)


def _to_average(t: Operands, beta: Operand) -> None:
    t.p = t.p + (1 - 1 / beta) * (t.z - t.p)


@stage("write", _Z)
def to_average(t: Operands, h: Hyperparameters) -> None:
    """The weights to evaluate, from those to train: p <- x, where beta is the first of `betas`."""
    _to_average(t, h.betas[0])


@stage("write", _Z)
def to_average_by_momentum(t: Operands, h: Hyperparameters) -> None:
    """The weights to evaluate, from those to train: p <- x, where beta is `momentum`."""
    _to_average(t, h.momentum)


@stage("moments", variants={"average": to_average})
def between_by_beta1(t: Operands, h: Hyperparameters) -> None:
    """Gradients are taken between z and x: beta is the first of `betas`."""
    t.between = h.betas[0]


@stage("moments", variants={"average": to_average_by_momentum})
def between_by_momentum(t: Operands, h: Hyperparameters) -> None:
    """Gradients are taken between z and x: beta is `momentum`."""
    t.between = h.momentum


@stage("moments", counts=True)
def warm_up(t: Operands, h: Hyperparameters) -> None:
    """The rate on a straight line from 0: lr <- lr min(t / T, 1). The average has to know of it."""
    t.lr = t.lr * minimum(t.step / h.warmup_steps, 1.0)


@stage("moments", Slot("weight_sum", shape="scalar"), Slot("lr_max", shape="scalar"), counts=True)
def weigh(t: Operands, h: Hyperparameters) -> None:
    """The share of the average that is new: c = w / (W <- W + w), w = k^r max(lr)^power; 0 while the rate is 0."""
    t.lr_max = maximum(t.lr_max, t.lr)
    weight = t.step**h.r * t.lr_max**h.weight_lr_power
    t.weight_sum = t.weight_sum + weight
    t.share = where(t.weight_sum > 0, weight / maximum(t.weight_sum, 1e-38), 0.0)


@stage("moments", Slot("exp_avg_sq", signed=False), counts=True)
def mean_square(t: Operands, h: Hyperparameters) -> None:
    """Adam without its momentum, which the average is: u = g, den = sqrt(v / bc2), v <- b2 v + (1 - b2) g^2."""
    beta2 = h.betas[1]
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.u = t.g
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - beta2**t.step)


@stage("decay")
def cautious_decay_at_y(t: Operands, h: Hyperparameters) -> None:
    """The same, only where the update too moves the weight towards zero: where u y > 0."""
    t.u = t.u + where(t.u * t.p > 0, h.weight_decay * t.p, 0.0)


def _decay_at_y(t: Operands, h: Hyperparameters) -> None:
    """Decay beside the gradient's moments, of both sequences: u <- u + wd y."""
    t.u = t.u + h.weight_decay * t.p


decay_at_y = stage(
    "decay", variants={"decoupled": stage("decay")(_decay_at_y), "cautious": cautious_decay_at_y}
)(_decay_at_y)  # fmt: skip


@stage("write", _Z)
def descend_and_average(t: Operands, h: Hyperparameters) -> None:
    """One step of both: y <- y + c (z - y) + lr (beta (1 - c) - 1) u; z <- z - lr u."""
    pace = t.lr * (t.between * (1 - t.share) - 1)
    t.p = t.p + t.share * (t.z - t.p) + pace * t.u
    t.z = t.z - t.lr * t.u

"""AdEMAMix: a fast and a slow mean of the gradients together; and the same with a single, summed momentum."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import exp, log, maximum, minimum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, stage
from ava.optimization.optimizers.stages.moments import slow_average

_MEAN, _SQUARE = Slot("exp_avg"), Slot("exp_avg_sq", signed=False)
_HAS_SLOW_MEAN = {"ademamix": slow_average}


@stage("moments")
def whole_alpha(t: Operands, h: Hyperparameters) -> None:
    """The slow mean's weight from the start."""
    t.alpha = h.alpha


@stage("moments", counts=True)
def rising_alpha(t: Operands, h: Hyperparameters) -> None:
    """The slow mean's weight, from 0 on a straight line: alpha_t = min(t / T, 1) alpha."""
    t.alpha = minimum(t.step / h.alpha_warmup, 1.0) * h.alpha


@stage("moments")
def whole_beta3(t: Operands, h: Hyperparameters) -> None:
    """The slow mean's decay from the start."""
    t.beta3 = h.betas[2]


@stage("moments", counts=True)
def rising_beta3(t: Operands, h: Hyperparameters) -> None:
    """The slow mean's decay, from the fast one's; its memory grows on a straight line."""
    t.beta3 = _lengthen(h.betas[0], h.betas[2], t.step / h.beta3_warmup)


@stage("moments", _MEAN, _SQUARE, Slot("exp_avg_slow"), counts=True, variants=_HAS_SLOW_MEAN)
def two_means(t: Operands, h: Hyperparameters) -> None:
    """Adam's means, and a slow one that is not freed of its zero start.

    m1 <- b1 m1 + (1 - b1) g, m2 <- b3 m2 + (1 - b3) g, v <- b2 v + (1 - b2) g^2;
    u = m1 / bc1 + alpha_t m2, den = sqrt(v) / sqrt(bc2).
    """
    beta1, beta2, _ = h.betas
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg_slow = t.beta3 * t.exp_avg_slow + (1 - t.beta3) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.u = t.exp_avg / (1 - beta1**t.step) + t.alpha * t.exp_avg_slow
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - beta2**t.step)


@stage("moments")
def whole_beta1(t: Operands, h: Hyperparameters) -> None:
    """The accumulator's decay from the start."""
    t.beta1 = h.betas[0]


@stage("moments", counts=True)
def rising_beta1(t: Operands, h: Hyperparameters) -> None:
    """The accumulator's decay, from `min_beta1`; its memory grows on a straight line."""
    t.beta1 = _lengthen(h.min_beta1, h.betas[0], t.step / h.beta1_warmup)


@stage("moments", _MEAN, _SQUARE, Slot("num_sum", shape="scalar"), counts=True, variants=_HAS_SLOW_MEAN)
def accumulator(t: Operands, h: Hyperparameters) -> None:
    """A decayed sum, and the gradient again, both over the number of gradients that the sum holds.

    m <- b1 m + g, num <- b1 num + 1, v <- b2 v + (1 - b2) g^2; u = (m + alpha g) / num, den = sqrt(v) / sqrt(bc2).
    """
    t.num_sum = t.beta1 * t.num_sum + 1
    t.exp_avg = t.beta1 * t.exp_avg + t.g
    t.exp_avg_sq = h.betas[1] * t.exp_avg_sq + (1 - h.betas[1]) * t.g * t.g
    t.u = (t.exp_avg + h.alpha * t.g) / t.num_sum
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - h.betas[1] ** t.step)


@stage("moments", _MEAN, _SQUARE, variants=_HAS_SLOW_MEAN)
def raw_accumulator(t: Operands, h: Hyperparameters) -> None:
    """The same sums as they are: u = m + alpha g, den = sqrt(v)."""
    t.exp_avg = t.beta1 * t.exp_avg + t.g
    t.exp_avg_sq = h.betas[1] * t.exp_avg_sq + (1 - h.betas[1]) * t.g * t.g
    t.u = t.exp_avg + h.alpha * t.g
    t.den = sqrt(t.exp_avg_sq)


def _lengthen(start: Operand, end: Operand, share: Operand) -> Operand:
    """A decay whose half-life is that share of the way from one's to another's: 1 / log b is a line."""
    share = minimum(share, 1.0)
    return exp(1 / ((1 - share) / log(maximum(start, 1e-30)) + share / log(maximum(end, 1e-30))))

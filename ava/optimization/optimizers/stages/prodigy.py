"""Prodigy: the learning rate from an estimate of how far the solution is.

While x_0 - x is what the parameters went and g the gradients on the way, <g, x_0 - x> / |sum g|_1 is a lower bound on
the distance D from the start to the solution. The largest seen, d, multiplies the rate. All parameters share d.

    dlr = d lr;  num <- b3 num + (d / d0) dlr <g, p0 - p>;  s <- b3 s + (d / d0) dlr g
    d_hat = c num / |s|_1;  d <- max(d, d_hat)

Each step is made with the rate of the d before it; moments see d g, so that they forget what was too slow. Mishchenko
& Defazio 2023, https://arxiv.org/abs/2306.06101.
"""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import absolute, maximum, minimum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, Words, stage
from ava.optimization.optimizers.stages.direction import divide_atan2

_D = Slot("d", shape="optimizer", start="d0")
_D_MAX = Slot("d_max", shape="optimizer", start="d0")
# The estimate is a difference of large sums: a compressed `s` would be an error of d, and so of every step.
_S, _P0 = Slot("s", exact=True), Slot("p0", start="p", exact=True)


@stage("moments", _D)
def rate_by_distance(t: Operands, h: Hyperparameters) -> None:
    """The step is made with the estimate as it stands: lr <- d lr."""
    t.distance = t.d
    t.lr = t.d * t.lr


@stage("moments", counts=True)
def correct_rate(t: Operands, h: Hyperparameters) -> None:
    """Adam's correction for moments that start at zero, as a factor of the rate: lr <- lr sqrt(bc2) / bc1."""
    beta1, beta2 = h.betas
    t.lr = t.lr * (sqrt(1 - beta2**t.step) / (1 - beta1**t.step))


@stage("moments")
def remember_as_squares(t: Operands, h: Hyperparameters) -> None:
    """The estimate forgets like the root of the mean square: b3 = sqrt(b2)."""
    t.beta3 = sqrt(h.betas[1])


@stage("moments")
def remember_as_told(t: Operands, h: Hyperparameters) -> None:
    """The estimate forgets by an option of its own."""
    t.beta3 = h.beta3


@stage("moments", _S, _P0)
def travel(t: Operands, h: Hyperparameters) -> None:
    """What this parameter adds to the estimate: along = (d / d0) dlr g (p0 - p); s <- b3 s + (d / d0) dlr g."""
    _travel(t, h, t.lr)


@stage("moments", _S, _P0)
def travel_warily(t: Operands, h: Hyperparameters) -> None:
    """The same with d in place of dlr in s: while the rate warms up, the estimate stays small."""
    _travel(t, h, t.distance)


def _travel(t: Operands, h: Hyperparameters, pace: Operand) -> None:
    scale = t.distance / h.d0
    t.s = t.beta3 * t.s + (scale * pace) * t.g
    t.along = (scale * t.lr) * t.g * (t.p0 - t.p)
    t.pull = absolute(t.s)


@stage("moments", _D, Slot("d_numerator", shape="optimizer"), totals=("along", "pull"))
def estimate(t: Operands, h: Hyperparameters) -> None:
    """The distance that all parameters' travels prove: d_hat = c (num <- b3 num + along) / pull."""
    t.d_numerator = t.beta3 * t.d_numerator + t.along
    t.d_hat = where(t.pull > 0, h.d_coef * t.d_numerator / maximum(t.pull, 1e-38), t.d)


@stage("moments")
def share_estimate(t: Operands, h: Hyperparameters) -> None:
    """An update with the gradient `alpha` times in it is that much longer: d_hat <- d_hat / alpha."""
    t.d_hat = t.d_hat / h.alpha


@stage("moments")
def limit_estimate(t: Operands, h: Hyperparameters) -> None:
    """The estimate at most doubles in 4 steps: d_hat <- min(d_hat, 2^(1/4) d)."""
    t.d_hat = minimum(t.d_hat, 2**0.25 * t.d)


@stage("moments", _D, _D_MAX)
def take_estimate(t: Operands, h: Hyperparameters) -> None:
    """The largest estimate: d <- d_max <- max(d_max, d_hat)."""
    t.d_max = maximum(t.d_max, t.d_hat)
    t.d = t.d_max


@stage("moments", _D, _D_MAX)
def approach_estimate(t: Operands, h: Hyperparameters) -> None:
    """Towards the largest estimate, by a factor a step: d <- min(d_max, growth d); the first time at once."""
    t.d_max = maximum(t.d_max, t.d_hat)
    begun = where(t.d == h.d0, maximum(t.d, t.d_hat), t.d)
    t.d = minimum(t.d_max, h.growth_rate * begun)


@stage("moments")
def scale_gradient(t: Operands, h: Hyperparameters) -> None:
    """What moments see: g <- d g."""
    t.g = t.distance * t.g


@stage("direction", variants={"atan2": divide_atan2})
def divide_at_distance(t: Operands, h: Hyperparameters) -> None:
    """Signal over noise, eps in the new estimate's unit: u <- u / (den + d eps)."""
    t.u = t.u / (t.den + t.d * h.eps)


def estimated_rate(
    beta3: float | None,
    growth_rate: float | None,
    safeguard_warmup: bool,
    bias_correction: bool = False,
    d_limiter: bool = False,
    shared: bool = False,
) -> Words:
    """The words before the moments: what is estimated, what becomes of the rate, and of the gradient.

    Args:
        beta3: whether the estimate forgets by an option of its own.
        growth_rate: whether d grows by a factor a step at most.
        safeguard_warmup: whether s is weighted by d alone.
        bias_correction: whether the rate makes up for moments that start at zero.
        d_limiter: whether an estimate is at most 2^(1/4) d.
        shared: whether the estimate is divided by `alpha`.
    """
    return (
        rate_by_distance,
        bias_correction and correct_rate,
        remember_as_squares if beta3 is None else remember_as_told,
        travel_warily if safeguard_warmup else travel,
        estimate,
        shared and share_estimate,
        d_limiter and limit_estimate,
        take_estimate if growth_rate is None else approach_estimate,
        scale_gradient,
    )

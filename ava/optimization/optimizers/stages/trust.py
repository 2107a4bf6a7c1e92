"""Trust: how long each layer's step may be, measured by its weights. LAMB with its global clip, and LARS."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, stage


@stage("gradient")
def measure_gradient(t: Operands, h: Hyperparameters) -> None:
    """What `clip_together` needs the sum of: g^2."""
    t.grad_square = t.g * t.g


@stage("gradient", totals=("grad_square",))
def clip_together(t: Operands, h: Hyperparameters) -> None:
    """The gradient of all parameters at most `max_grad_norm` long: g <- g / max(|g| / max_grad_norm, 1)."""
    t.g = t.g * (1 / maximum(sqrt(t.grad_square) / h.max_grad_norm, 1.0))


@stage("decay")
def decay_in_update(t: Operands, h: Hyperparameters) -> None:
    """Decay as part of the update, so that the trust ratio measures it too: u <- u + wd p."""
    t.u = t.u + h.weight_decay * t.p


@stage("trust")
def match_weights(t: Operands, h: Hyperparameters) -> None:
    """The update as long as the weights: u <- u |p| / |u|; as it is where either is 0.

    You et al. 2020 (LAMB), https://arxiv.org/abs/1904.00962.
    """
    t.u = t.u * _ratio(sqrt(t.sum(t.p * t.p)), sqrt(t.sum(t.u * t.u)), 1.0)


@stage("gradient")
def measure_trust(t: Operands, h: Hyperparameters) -> None:
    """What LARS multiplies a layer's gradient with: l = c |p| / (|g| + wd |p| + eps); 1 where |p| or |g| is 0.

    You et al. 2017, https://arxiv.org/abs/1708.03888.
    """
    weights, gradient = sqrt(t.sum(t.p * t.p)), sqrt(t.sum(t.g * t.g))
    bound = gradient + h.weight_decay * weights + h.eps
    t.trust = where(gradient > 0, _ratio(weights, bound, h.trust_coefficient), 1.0)


@stage("moments")
def apply_trust(t: Operands, h: Hyperparameters) -> None:
    """The gradient, decay included, at the layer's own rate, before momentum: g <- l g."""
    t.g = t.g * t.trust


def _ratio(weights: Operand, other: Operand, factor: float) -> Operand:
    """`factor` times the ratio of two lengths; 1 where either is 0."""
    ratio = factor * weights / maximum(other, 1e-30)
    return where(weights > 0, where(other > 0, ratio, 1.0), 1.0)

"""Curvature: the mean gradient over an estimate of the Hessian's diagonal, each coordinate clipped. Sophia.

An estimate is no part of an ordinary step: it comes from a second backward pass every few steps. What averages it is
the moments' variant "estimate", a sentence of its own with the estimate in the place of the gradient.
"""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, minimum
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage

_SQUARES = Slot("hessian", signed=False)
_PRODUCTS = Slot("hessian")
"""Squares of gradients (Gauss-Newton) are never negative; products with random vectors (Hutchinson) can be."""


def average_curvature(t: Operands, h: Hyperparameters) -> None:
    """The mean of the estimates: h <- b2 h + (1 - b2) estimate."""
    beta2 = h.betas[1]
    t.hessian = beta2 * t.hessian + (1 - beta2) * t.g


def mean_gradient(t: Operands, h: Hyperparameters) -> None:
    """The mean gradient: u = m <- b1 m + (1 - b1) g. It is not freed of its zero start, which serves as a warmup."""
    beta1 = h.betas[0]
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.u = t.exp_avg


average_squares = stage("moments", _SQUARES)(average_curvature)
average_products = stage("moments", _PRODUCTS)(average_curvature)
mean_beside_squares = stage("moments", Slot("exp_avg"), _SQUARES, variants={"estimate": average_squares})(mean_gradient)
mean_beside_products = stage("moments", Slot("exp_avg"), _PRODUCTS, variants={"estimate": average_products})(
    mean_gradient
)  # fmt: skip


@stage("direction")
def clip_by_curvature(t: Operands, h: Hyperparameters) -> None:
    """Newton's step where it is short, a sign step where it is not: u <- clip(u / (rho max(h, 0) + 1e-15), -1, 1)."""
    step = t.u / (h.rho * maximum(t.hessian, 0.0) + 1e-15)
    t.u = minimum(maximum(step, -1.0), 1.0)

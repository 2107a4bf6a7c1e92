"""AGMOHD's words: Adam whose momentum, rate and gradient are turned down while training is hindered.

How far stands in the param group and is set before every step (`ava/optimization/stability/pilot.py`): numbers on a
processor, 0-dim tensors on an accelerator, where nobody reads them.

    h.gradient_factor   what all gradients are multiplied with
    h.momentum_factor   what is left of b1, from 0 to 1
    h.rate_factor       what the learning rate is multiplied with

At 1, 1 and 1 the words are Adam's to the last bit. That b1 changes from step to step changes how much the mean of the
gradients weighs in all, 1 - b1(1) ... b1(t). It is kept as prod = prod_s b1(s) / b1, which is 1 where nothing was
turned down, so that the state of an Adam which has no such slot can be taken up.
"""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, minimum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, stage

_MOMENTS = (Slot("exp_avg"), Slot("exp_avg_sq", signed=False))
_PRODUCT = Slot("momentum_product", signed=False, shape="scalar", start=1.0)
_TINY = 1e-30


@stage("gradient")
def turn_gradient_down(t: Operands, h: Hyperparameters) -> None:
    """All gradients by the same factor: g <- f g."""
    t.g = h.gradient_factor * t.g


@stage("moments", *_MOMENTS, _PRODUCT, counts=True)
def hindered_moments(t: Operands, h: Hyperparameters) -> None:
    """Adam's moments with a b1 of this step's own.

    m <- b m + (1 - b) g with b = max(f b1, min(floor, b1)); prod <- prod b / b1; u = m / (1 - prod b1^t).
    """
    _remember(t, h)
    t.u = t.exp_avg / (1 - t.momentum_product * h.betas[0] ** t.step)


@stage("moments", *_MOMENTS, _PRODUCT, counts=True)
def hindered_moments_ahead(t: Operands, h: Hyperparameters) -> None:
    """The same, where the mean will have gone with the gradient once more (NAdam's look ahead).

    u = (b m + (1 - b) g) / (1 - b prod b1^t). Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.
    """
    beta = _remember(t, h)
    weight = 1 - beta * (t.momentum_product * h.betas[0] ** t.step)
    t.u = (beta * t.exp_avg + (1 - beta) * t.g) / weight


def _remember(t: Operands, h: Hyperparameters) -> Operand:
    """Take the gradient into both moments; the b1 of this step."""
    beta1, beta2 = h.betas
    beta = maximum(minimum(h.momentum_factor, 1.0) * beta1, minimum(h.momentum_floor, beta1))
    t.momentum_product = t.momentum_product * (beta / maximum(beta1, _TINY))
    t.exp_avg = beta * t.exp_avg + (1 - beta) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - beta2**t.step)
    return beta


@stage("direction")
def limit_update(t: Operands, h: Hyperparameters) -> None:
    """No coordinate beyond a limit, so that the norm of n of them is at most limit sqrt(n): u <- clamp(u)."""
    t.u = maximum(minimum(t.u, h.update_limit), -h.update_limit)


@stage("trust")
def turn_rate_down(t: Operands, h: Hyperparameters) -> None:
    """The rate by a factor: lr <- f lr."""
    t.lr = h.rate_factor * t.lr


@stage("trust")
def square_update(t: Operands, h: Hyperparameters) -> None:
    """What the norm of the update is made of: lr u, as each group has a rate of its own."""
    step = t.lr * t.u
    t.update_square = step * step


@stage("trust", Slot("update_norm", signed=False, shape="optimizer"), totals=("update_square",))
def note_update_norm(t: Operands, h: Hyperparameters) -> None:
    """The norm of the update of all parameters together, without their decay; it is there when the step is done."""
    t.update_norm = sqrt(t.update_square)

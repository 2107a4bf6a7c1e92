"""What sets Adam's relatives apart: NAdam's two shares of momentum and gradient, RAdam's rectified first steps."""

from __future__ import annotations

from ava.optimization.optimizers import arithmetic
from ava.optimization.optimizers.arithmetic import maximum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, stage


@stage(
    "moments",
    Slot("exp_avg"),
    Slot("exp_avg_sq", signed=False),
    Slot("mu_product", shape="scalar", start=1.0),
    counts=True,
)
def nesterov_moments(t: Operands, h: Hyperparameters) -> None:
    """Adam's moments, with the mean as it will be after the next step.

        mu_t = b1 (1 - 0.96^(t psi) / 2);  u = (1 - mu_t) / (1 - mu_1...mu_t) g + mu_t+1 / (1 - mu_1...mu_t+1) m
        den = sqrt(v) / sqrt(1 - b2^t)

    psi is `momentum_decay`. Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ.
    """
    beta1, beta2 = h.betas
    now = beta1 * (1 - 0.5 * 0.96 ** (t.step * h.momentum_decay))
    then = beta1 * (1 - 0.5 * 0.96 ** ((t.step + 1) * h.momentum_decay))
    t.mu_product = t.mu_product * now
    t.exp_avg = beta1 * t.exp_avg + (1 - beta1) * t.g
    t.exp_avg_sq = beta2 * t.exp_avg_sq + (1 - beta2) * t.g * t.g
    t.u = ((1 - now) / (1 - t.mu_product)) * t.g + (then / (1 - t.mu_product * then)) * t.exp_avg
    t.den = sqrt(t.exp_avg_sq) / sqrt(1 - beta2**t.step)


def _rectification(t: Operands, beta2: float) -> tuple[Operand, Operand]:
    """The length of the mean square's memory in gradients, and how far its variance lets it be trusted."""
    longest = 2 / (1 - beta2) - 1
    power = beta2**t.step
    length = longest - 2 * t.step * power / (1 - power)
    # Below 5 the factor is not used, and not a number.
    now, most = maximum(length, 5.0), maximum(longest, 5.0)
    return length, sqrt((now - 4) * (now - 2) * most / ((most - 4) * (most - 2) * now))


@stage("direction", counts=True)
def divide_rectified_atan2(t: Operands, h: Hyperparameters) -> None:
    """The same with the division of `divide_atan2`."""
    length, factor = _rectification(t, h.betas[1])
    t.u = where(length > 5, (1.27 * factor) * arithmetic.atan2(t.u, t.den), t.u)


@stage("direction", counts=True, variants={"atan2": divide_rectified_atan2})
def divide_rectified(t: Operands, h: Hyperparameters) -> None:
    """Division by the second moment at the pace that its variance allows, and none in the first steps.

        rho_inf = 2 / (1 - b2) - 1;  rho = rho_inf - 2 t b2^t / (1 - b2^t)
        rho > 5:  u <- u r / (den + eps / sqrt(1 - b2^t)),
                  r = sqrt((rho - 4)(rho - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho))

    Eps stands beside the root of the mean square as it is stored, as in torch.optim.RAdam. Liu et al. 2020,
    https://arxiv.org/abs/1908.03265.
    """
    beta2 = h.betas[1]
    length, factor = _rectification(t, beta2)
    eps = h.eps / sqrt(1 - beta2**t.step)
    t.u = where(length > 5, factor * t.u / (t.den + eps), t.u)

"""Noise on a schedule."""

from __future__ import annotations

import hashlib
from statistics import NormalDist
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.schedules.cosine import cosine
from ava.optimization.learning_rate.schedules.linear import linear
from ava.registry import Fraction, NonNegativeFloat, PositiveInt, scheduler


@scheduler
def noisy(
    step: int,
    total: int,
    /,
    base: Literal["constant", "linear", "cosine"] = "cosine",
    floor: Fraction = 0.0,
    noise_std: NonNegativeFloat = 0.2,
    noise_limit: Fraction = 0.67,
    noise_range: tuple[Fraction, Fraction] = (0.0, 1.0),
    hold_steps: PositiveInt = 1,
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0,
) -> Factors:
    """Noisy decay: a schedule times 1 + noise, which leads out of sharp minima.

        base(step) * (1 + e)    with e ~ N(0, noise_std ** 2), drawn within +- noise_limit

    So the factor is never negative and never above base(step) * (1 + noise_limit). The noise is a function of `seed`
    and the step: it is the same after a resume and on every rank. Step 0 has none, so that a warmup rises to `base`.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        base: the schedule under the noise.
        floor: multiplier that `base` reaches at `total`, where it decays.
        noise_std: standard deviation of the noise, as a share of the rate, before it is cut.
        noise_limit: the noise stays within this share of the rate.
        noise_range: the shares of the training at which the noise begins and ends.
        hold_steps: steps for which each draw is kept.
        seed: which noise.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: the noise ends before it begins.

    Reference: Liu et al. 2022, https://arxiv.org/abs/2208.11873, whose noise differs between parameters
    """
    begin, end = noise_range
    if begin > end:
        problem = "must begin before it ends."
        raise InputError(problem, key="noise_range", value=list(noise_range), hint="Such as [0.4, 0.9].")
    factor = 1.0 if base == "constant" else (linear if base == "linear" else cosine)(step, total, floor).lr
    if step > 0 and begin <= step / total <= end:
        factor *= 1 + _normal(_uniform(seed, step // hold_steps), noise_std, noise_limit)
    return Factors(factor)


def _uniform(seed: int, place: int) -> float:
    """A number in (0, 1), the same for the same arguments wherever it is asked for."""
    digest = hashlib.blake2b(str(place).encode(), digest_size=8, key=str(seed).encode()).digest()
    return ((int.from_bytes(digest, "big") >> 12) + 0.5) / 2**52


def _normal(uniform: float, std: float, limit: float) -> float:
    """The normal number of mean 0, cut off at +- limit, that has the quantile `uniform`."""
    if std == 0 or limit == 0:
        return 0.0
    normal = NormalDist(0.0, std)
    below = normal.cdf(-limit)
    return max(-limit, min(limit, normal.inv_cdf(below + uniform * (1 - 2 * below))))

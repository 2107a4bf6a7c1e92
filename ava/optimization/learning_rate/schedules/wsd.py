"""Warmup, stable, decay."""

from __future__ import annotations

import math
from typing import Literal

from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.lengths import in_steps
from ava.registry import Fraction, Length, scheduler


@scheduler
def wsd(
    step: int,
    total: int,
    /,
    decay_steps: Length = 0.2,
    decay: Literal["linear", "cosine", "sqrt"] = "linear",
    floor: Fraction = 0.0,
) -> Factors:
    """Warmup-stable-decay: constant, then a decay over the last `decay_steps`; the stable part can be extended.

        1                                    before the decay
        floor + (1 - floor) * decay(t)       in the decay, of which t is done
        decay(t) = 1 - t (linear), (1 + cos(pi * t)) / 2 (cosine), 1 - sqrt(t) (sqrt)

    What comes before the decay does not depend on `total` (unless a warmup is a share of it): a checkpoint from there
    continues a longer training, or starts any number of decays. A decay longer than the training is cut to its length.

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        decay_steps: length of the decay.
        decay: its form; sqrt falls at once, cosine gently.
        floor: multiplier reached at `total`.

    Returns:
        The multiplier on every group's base learning rate; the phase is "cooldown" in the decay.

    Reference: Hu et al. 2024, https://arxiv.org/abs/2404.06395; Hägele et al. 2024, https://arxiv.org/abs/2405.18392
    """
    length = min(in_steps(decay_steps, total), total)
    begin = total - length
    if length == 0 or step < begin:
        return Factors(1.0)
    done = (step - begin) / length
    left = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "sqrt": 1 - math.sqrt(done)}[decay]
    return Factors(floor + (1 - floor) * left, phase="cooldown")

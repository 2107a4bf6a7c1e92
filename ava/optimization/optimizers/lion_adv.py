"""Lion in little memory."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.clip import clip_length
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import to_sign
from ava.optimization.optimizers.stages.moments import interpolate
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="LionAdv", defaults={"state": "factored", "stochastic_rounding": True})
def lion_adv(
    lr: PositiveFloat = 1e-3,
    betas: tuple[Decay, Decay] = (0.9, 0.99),
    weight_decay: NonNegativeFloat = 0.0,
    clip_threshold: PositiveFloat | None = None,
) -> Words:
    """Lion with factored momentum, a bit an element, and a clip; where memory is what is short.

        g <- g min(c / |g|, 1)
        u = sign(b1 m + (1 - b1) g);  p <- (1 - lr wd) p - lr u;  m <- b2 m + (1 - b2) g

    Args:
        lr: learning rate; with factored momentum AdamW's, with a dense one 3 to 10 times smaller.
        betas: weight of the momentum in this update, and decay of the momentum.
        weight_decay: decay per unit of learning rate; 3 to 10 times larger than AdamW's.
        clip_threshold: greatest length of each parameter's gradient; None does not clip.

    Reference: Chen et al. 2023, https://arxiv.org/abs/2302.06675;
        Sfyraki & Wang 2025 (the clip), https://arxiv.org/abs/2506.04192;
        Park & Lee 2024 (SMMF, the storage), https://arxiv.org/abs/2412.08894
    """
    return clip_threshold and clip_length, interpolate, to_sign, weight_decay and decoupled_decay, descend

"""Lion in little memory."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Words
from ava.optimization.optimizers.stages.clip import clip_length
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import to_sign
from ava.optimization.optimizers.stages.moments import interpolate
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="LionAdv", defaults={"stochastic_rounding": True})
def lion_adv(
    lr: PositiveFloat = 3e-4,
    betas: tuple[Decay, Decay] = (0.9, 0.99),
    weight_decay: NonNegativeFloat = 0.0,
    clip_threshold: PositiveFloat | None = None,
) -> Words:
    """Lion with a clip, and weights rounded at random; with factored momentum, a bit an element, if asked.

        g <- g min(c / |g|, 1)
        u = sign(b1 m + (1 - b1) g);  p <- (1 - lr wd) p - lr u;  m <- b2 m + (1 - b2) g

    With state=factored it learns more slowly, and no rate makes up for that on every problem: at 1e-3 the loss on
    handwritten digits is 1.2 times AdamW's, at 2e-3 that of a small GPT as well. It is for what does not fit otherwise.

    Args:
        lr: learning rate; 3 times smaller than AdamW's, with state=factored AdamW's.
        betas: weight of the momentum in this update, and decay of the momentum.
        weight_decay: decay per unit of learning rate; larger than AdamW's by as much as the rate is smaller.
        clip_threshold: greatest length of each parameter's gradient; None does not clip.

    Reference: Chen et al. 2023, https://arxiv.org/abs/2302.06675;
        Sfyraki & Wang 2025 (the clip), https://arxiv.org/abs/2506.04192;
        Park & Lee 2024 (SMMF, the storage), https://arxiv.org/abs/2412.08894
    """
    return clip_threshold and clip_length, interpolate, to_sign, weight_decay and decoupled_decay, descend

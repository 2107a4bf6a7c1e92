"""Adafactor."""

from __future__ import annotations

from ava.errors import InputError
from ava.optimization.optimizers.sentence import ByShape, Words
from ava.optimization.optimizers.stages import adafactor as stages
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.write import descend
from ava.registry import Decay, NonNegativeFloat, PositiveFloat, optimizer


@optimizer(title="Adafactor")
def adafactor(
    lr: PositiveFloat | None = 3e-2,
    eps: tuple[NonNegativeFloat, NonNegativeFloat] = (1e-30, 1e-3),
    clip_threshold: PositiveFloat = 1.0,
    decay_rate: float = -0.8,
    beta1: Decay | None = None,
    weight_decay: NonNegativeFloat = 0.0,
    scale_parameter: bool = True,
    relative_step: bool | None = None,
    warmup_init: bool = False,
) -> ByShape:
    """Adafactor: a second moment in two vectors a matrix, and steps relative to the weights; for what barely fits.

        b2 = 1 - t^decay_rate;  R, C <- means of g^2 + eps1 over columns and rows, decayed by b2
        u = g / (sqrt(R / mean R) sqrt(C)), of a vector g / sqrt(v);  u <- u / max(1, rms u / clip_threshold)
        lr, or min(1e-2, 1 / sqrt(t)) where it is null;  lr <- lr max(eps2, rms p);  p <- (1 - lr wd) p - lr u

    It is transformers' Adafactor for matrices and vectors, but for the default rate: there null, as in the paper. A
    convolution kernel is factored as the matrix of its first dimension by all others, as the paper flattens it;
    transformers factors the last two dimensions, 3 x 3.
    torch.optim.Adafactor differs: its rate is min(lr, 1 / sqrt(t)), and it bounds the mean squares from below where
    this adds eps1 to the squares.

    Args:
        lr: learning rate, in units of the weights' size while `scale_parameter`, else AdamW's; null for the relative
            one of the paper, which no schedule moves.
        eps: (added to the square, least size that counts for `scale_parameter`).
        clip_threshold: largest root mean square of an update.
        decay_rate: how the mean square's memory grows with the steps; between -1 and 0.
        beta1: decay of a mean of the steps, a tensor of the parameter's size; null keeps none.
        weight_decay: decay per unit of learning rate.
        scale_parameter: whether steps are in proportion to each parameter's root mean square.
        relative_step: whether the rate comes from the number of the step; null where `lr` is null.
        warmup_init: whether the relative rate rises from 1e-6, by 1e-6 a step.

    Raises:
        InputError: both a rate and a relative one, or neither, or a warmup of a rate that is set.

    Reference: Shazeer & Stern 2018, https://arxiv.org/abs/1804.04235
    """
    is_relative = _is_relative(lr, relative_step, warmup_init)
    rate = (stages.rising_relative_rate if warmup_init else stages.relative_rate) if is_relative else None
    ending: Words = (
        rate, scale_parameter and stages.scale_by_weights, stages.divide_plainly, stages.clip_root_mean_square,
        beta1 is not None and stages.mean_of_steps, weight_decay and decoupled_decay,
        descend if beta1 is None else stages.subtract,
    )  # fmt: skip
    return ByShape((stages.factored_mean_square, *ending), (stages.growing_mean_square, *ending))


def _is_relative(lr: float | None, relative_step: bool | None, warmup_init: bool) -> bool:
    """Whether the rate comes from the number of the step.

    Raises:
        InputError: the options contradict each other.
    """
    is_relative = lr is None if relative_step is None else relative_step
    if is_relative and lr is not None:
        raise InputError(
            f"a relative step has its own rate, but lr={lr} is set.", key="relative_step", value=relative_step,
            hint="Leave relative_step out to train at lr, or set lr=null.",
        )  # fmt: skip
    if lr is None and not is_relative:
        raise InputError(
            "without a relative step the rate must be given.", key="lr", value=lr,
            hint="Set lr=3e-2, or leave relative_step out.",
        )  # fmt: skip
    if warmup_init and not is_relative:
        raise InputError(
            f"warms the relative step up, but lr={lr} is set.", key="warmup_init", value=warmup_init,
            hint="Set warmup_init=false and use a schedule's warmup_steps, or set lr=null.",
        )  # fmt: skip
    return is_relative

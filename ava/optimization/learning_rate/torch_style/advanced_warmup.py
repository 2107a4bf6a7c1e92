"""AdvancedWarmupScheduler: a warmup between two rates, without a schedule after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from ava.errors import InputError
from ava.optimization.learning_rate import hyperparameters
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.torch_style.torch_style import TorchStyle
from ava.optimization.learning_rate.warmup import Curve, Warmup
from ava.optimization.options import check
from ava.registry import NonNegativeFloat, NonNegativeInt


@dataclass(frozen=True)
class WarmupConfig:
    """What an AdvancedWarmupScheduler does.

    Args:
        warmup_type: the form of the rise.
        warmup_steps: its length in optimizer steps.
        initial_lr: the first step's rate, of the first group.
        target_lr: the rate from step `warmup_steps` on, of the first group; None is the one that it has.
        curve: for "custom": the share of the way from `initial_lr` to `target_lr`, as a function of the share of the
            steps, or as values in even distances: [0, 0.1, 1] has made a tenth of the way after half of the steps.

    Raises:
        InputError: a value cannot be, or a custom form has no curve or the other way round.
    """

    warmup_type: Literal["linear", "cosine", "exponential", "custom"] = "linear"
    warmup_steps: int = 1000
    initial_lr: float = 1e-7
    target_lr: float | None = None
    curve: Sequence[float] | Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        check("warmup_type", self.warmup_type, Literal["linear", "cosine", "exponential", "custom"])
        check("warmup_steps", self.warmup_steps, NonNegativeInt)
        check("initial_lr", self.initial_lr, NonNegativeFloat)
        check("target_lr", self.target_lr, NonNegativeFloat | None)
        if (self.warmup_type == "custom") != (self.curve is not None):
            problem = "custom needs a curve." if self.curve is None else "only custom has a curve."
            raise InputError(problem, key="warmup_type", value=self.warmup_type, hint="Such as curve=[0, 0.1, 1].")
        if self.warmup_type == "exponential" and self.initial_lr == 0:
            problem = "must be above 0: an exponential cannot rise from there."
            raise InputError(problem, key="initial_lr", value=self.initial_lr, hint="Such as 1e-7.")


class AdvancedWarmupScheduler(TorchStyle):
    """A rise of the rate from `initial_lr` at the first step to `target_lr`, which is then kept.

    Groups keep the ratios of the rates that they were given: the configuration's rates are the first group's. To go
    on with a schedule, `SchedulerFactory.create("cosine", optimizer, total_steps, warmup_steps=1000)` has both.

    Args:
        optimizer: any torch.optim.Optimizer.
        config: the two rates and the way between them.
        last_epoch: steps already taken less 1, as torch counts.

    Raises:
        InputError: the first rate is above the second, or the first group's own rate is 0.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, config: WarmupConfig, last_epoch: int = -1) -> None:
        self.config = config
        targets = _targets(optimizer, config.target_lr)
        if not 0 < targets[0] >= config.initial_lr:
            problem = f"must be at most the rate that the warmup leads to, which must be above 0 and is {targets[0]}."
            raise InputError(problem, key="initial_lr", value=config.initial_lr, hint="Lower it, or raise target_lr.")
        self._warmup = _rise(config, config.initial_lr / targets[0])
        super().__init__(optimizer, targets, last_epoch=last_epoch)

    def _factors(self, place: float) -> Factors:
        step, steps = int(place), self.config.warmup_steps
        return Factors(1.0) if step >= steps else Factors(self._warmup.factor(step, steps), phase="warmup")


def _targets(optimizer: torch.optim.Optimizer, target_lr: float | None) -> list[float]:
    """Every group's rate after the warmup."""
    rates = [group.get("initial_lr", hyperparameters.read(group, "lr")) for group in optimizer.param_groups]
    own = [float(rate) for rate in rates if rate is not None]
    if len(own) < len(rates) or not own[0] > 0:
        problem = "must be above 0: the other rates are kept in ratio to it."
        raise InputError(problem, key="param_groups[0].lr", value=rates[0], hint="Give every group an lr.")
    return [rate if target_lr is None else target_lr * (rate / own[0]) for rate in own]


def _rise(config: WarmupConfig, start: float) -> Warmup:
    """The rise in multiples of the target."""
    if config.curve is None:
        return Warmup(config.warmup_steps, config.warmup_type, start)
    given = config.curve
    curve: Curve = (
        (lambda share: start + (1 - start) * given(share))
        if callable(given)
        else [start + (1 - start) * value for value in given]
    )
    return Warmup(config.warmup_steps, "custom", curve=curve)

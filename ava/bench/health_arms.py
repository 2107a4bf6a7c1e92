"""What is measured of a gradient monitor: our own, and twins of what people write."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ava.optimization import GradientHealthMonitor, get_optimizer
from ava.optimization.gradients.clip.norm import norm as clip_norm
from ava.optimization.gradients.health.measure import measure
from ava.optimization.gradients.health.scale import scale_

HIGH = 1e9
"""A norm that no gradient has."""
OFTEN = 10
"""Where statistics are not taken in every step: in one of so many."""

Step = Callable[[], Any]
Make = Callable[[list[nn.Parameter]], Step]


@dataclass(frozen=True)
class Arm:
    """One thing to pay for.

    Attributes:
        name: what the table calls it.
        base: the arm it is compared with.
        make: parameters with gradients -> one step.
        targets: parameter set -> what the ratio may be.
        num_steps: how many steps one call of what was made takes.
    """

    name: str
    base: str
    make: Make
    targets: dict[str, float] = field(default_factory=dict)
    num_steps: int = 1


def naive(parameters: list[nn.Parameter], max_norm: float) -> dict[str, float]:
    """Nine numbers as they come to mind: gradient by gradient, each read at once."""
    squares = total = 0.0
    count = zeros = 0
    largest, smallest, has_nan, has_inf = -float("inf"), float("inf"), False, False
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        has_nan = has_nan or bool(torch.isnan(gradient).any().item())
        has_inf = has_inf or bool(torch.isinf(gradient).any().item())
        squares += gradient.norm().item() ** 2
        total += gradient.sum().item()
        largest, smallest = max(largest, gradient.max().item()), min(smallest, gradient.min().item())
        zeros += int((gradient == 0).sum().item())
        count += gradient.numel()
    mean, norm = total / count, squares**0.5
    deviation = sum(((p.grad - mean) ** 2).sum().item() for p in parameters if p.grad is not None)
    nn.utils.clip_grad_norm_(parameters, max_norm)
    return {
        "has_nan": has_nan, "has_inf": has_inf, "norm": norm, "mean": mean, "std": (deviation / count) ** 0.5,
        "max": largest, "min": smallest, "num_zeros": zeros, "sparsity": zeros / count,
    }  # fmt: skip


def lean(parameters: list[nn.Parameter], max_norm: float) -> list[float]:
    """Norm, mean, deviation, extremes and zeros by torch's operations over lists, read once, and its clip."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients))
    sums = torch.stack([gradient.sum() for gradient in gradients])
    extremes = torch.stack([torch.stack(gradient.aminmax()) for gradient in gradients])
    zeros = torch.stack([gradient.numel() - torch.count_nonzero(gradient) for gradient in gradients]).sum()
    norm, count = torch.linalg.vector_norm(norms), sum(map(Tensor.numel, gradients))
    mean = sums.sum() / count
    std = (norm.square() / count - mean.square()).clamp(min=0).sqrt()
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    told = [norm, mean, std, extremes[:, 1].max(), extremes[:, 0].min(), zeros.to(norm.dtype)]
    return list(torch.stack(told).tolist())


def _falling(parameters: list[nn.Parameter]) -> Iterator[float]:
    """Thresholds that are always a little below the norm which the last one left."""
    norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
    while True:
        norm *= 0.9999
        yield norm


def _thresholds(parameters: list[nn.Parameter], clips: bool) -> Iterator[float]:
    return _falling(parameters) if clips else itertools.repeat(HIGH)


def _torch_clip(clips: bool) -> Make:
    def make(parameters: list[nn.Parameter]) -> Step:
        limits = _thresholds(parameters, clips)
        return lambda: nn.utils.clip_grad_norm_(parameters, next(limits), foreach=True)

    return make


def _ours(clips: bool, statistics: bool) -> Make:
    """Measure and clip in every step."""

    def make(parameters: list[nn.Parameter]) -> Step:
        limits = _thresholds(parameters, clips)

        def step() -> None:
            measured = measure(parameters, statistics=statistics)
            scale_(measured, clip_norm(measured, clip_norm=next(limits)))

        return step

    return make


def _seldom(parameters: list[nn.Parameter]) -> Step:
    """A round of steps, with statistics in one of them."""
    plain, full = _ours(False, False)(parameters), _ours(False, True)(parameters)
    return lambda: [step() for step in [full, *[plain] * (OFTEN - 1)]]


def _monitor(parameters: list[nn.Parameter]) -> Step:
    monitor = GradientHealthMonitor(max_norm=HIGH)
    return lambda: monitor.check_gradients(parameters)


def _adamw(library: str, guarded: bool) -> Make:
    """A step of AdamW; guarded, with clip and skip measured and handed to it."""

    def make(parameters: list[nn.Parameter]) -> Step:
        kind: Any = (
            functools.partial(torch.optim.AdamW, fused=True) if library == "torch fused" else get_optimizer("adamw")
        )
        optimizer = kind(parameters, lr=1e-5)

        def step() -> None:
            measured = measure(parameters)
            factor = clip_norm(measured, clip_norm=HIGH)
            optimizer.grad_scale, optimizer.found_inf = factor.reciprocal().float(), measured.found_inf
            optimizer.step()

        return step if guarded else optimizer.step

    return make


BARE = "clip_grad_norm_"
CLIPPING = "clip_grad_norm_, clipping"
ARMS = [
    Arm(BARE, BARE, _torch_clip(False)),
    Arm("naive monitor, nine numbers by .item()", BARE, lambda p: lambda: naive(p, HIGH)),
    Arm("lean monitor, torch's list operations", BARE, lambda p: lambda: lean(p, HIGH)),
    Arm("norms, finite flag, clip", BARE, _ours(False, False), {"gpt": 0.5, "small": 0.5}),
    Arm("... all statistics every tenth step", BARE, _seldom, {"gpt": 0.6, "small": 0.6}, OFTEN),
    Arm("... all statistics every step", BARE, _ours(False, True), {"gpt": 1.0, "small": 0.35}),
    Arm("GradientHealthMonitor, numbers read", BARE, _monitor),
    Arm(CLIPPING, CLIPPING, _torch_clip(True)),
    Arm("norms, finite flag, clip; clipping", CLIPPING, _ours(True, False)),
    Arm("... all statistics every step; clipping", CLIPPING, _ours(True, True)),
    Arm("AdamW, ava", "AdamW, ava", _adamw("ava", False)),
    Arm("AdamW, ava, clip and skip folded in", "AdamW, ava", _adamw("ava", True), {"gpt": 1.35, "small": 1.35}),
    Arm("AdamW, torch fused", "AdamW, torch fused", _adamw("torch fused", False)),
    Arm("AdamW, torch fused, clip and skip folded in", "AdamW, torch fused", _adamw("torch fused", True),
        {"gpt": 1.35, "small": 1.35}),
]  # fmt: skip
"""Targets are of the usual step, whose norm is below the threshold: then nothing has to be multiplied."""

"""Estimates of the loss's curvature, for optimizers that ask for them (Sophia): every few steps, beside the gradient.

Both are of the diagonal of the mean loss's Hessian, at the weights of the step, over the samples of its window on
all ranks:

    gauss_newton_bartlett   B g^2: g the mean gradient over the window's B terms with targets drawn from the model
    hutchinson              u (H u): u random signs, the same on all ranks

Random numbers are keyed by seed and step, so that a resumed run draws the same. Liu et al. 2024,
https://arxiv.org/abs/2305.14342.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ava.data.loader import Window
from ava.optimization.optimizers.wrappers.estimates import VARIANT
from ava.optimization.optimizers.wrappers.sam import kept_buffers
from ava.tasks.task import SamplingTask
from ava.training.state import Run


def refresh(run: Run, window: Window) -> None:
    """Hand the optimizer an estimate, if it uses any and the time has come: at step 1, 1 + k, 1 + 2 k, ...

    Args:
        run: what is trained; only the optimizer's state changes.
        window: this rank's samples of the step.
    """
    group = run.optimizer.param_groups[0]
    period = group.get("update_period")
    if period is None or run.step % period or not run.optimizer.speaks_of(VARIANT):
        return
    count = sum(run.task.count(batch) for batch in window.batches) if window.counted else 0
    total = max(run.world.sum([float(count)])[0], 1.0)
    estimate = {"gauss_newton_bartlett": _gauss_newton_bartlett, "hutchinson": _hutchinson}[group["estimator"]]
    # What a further forward pass writes into buffers (statistics of BatchNorm) would count the samples twice.
    with kept_buffers(run.model):
        estimates = estimate(run, window, total)
    run.optimizer.take_estimate(dict(zip(run.parameters, estimates, strict=True)))


def _gauss_newton_bartlett(run: Run, window: Window, total: float) -> list[Tensor]:
    """B g^2, with g the mean gradient at targets drawn from the model."""
    task = run.task
    assert isinstance(task, SamplingTask)
    generator = _generator(run, run.world.rank)
    draw = functools.partial(task.sampled_losses, generator=generator)
    weight = 1 / total if window.counted else 0.0
    sums = [torch.zeros_like(p) for p in run.parameters]
    for loss in _losses(run, window, draw):
        gradients = torch.autograd.grad(loss * weight, run.parameters, allow_unused=True)
        _add(sums, gradients)
    return [total * mean * mean for mean in _over_ranks(run, sums)]


def _hutchinson(run: Run, window: Window, total: float) -> list[Tensor]:
    """The product of random signs u with H u."""
    generator = _generator(run, 0)
    signs = [
        torch.randint(0, 2, p.shape, generator=generator, device=p.device, dtype=torch.int8).to(p.dtype) * 2 - 1
        for p in run.parameters
    ]
    weight = 1 / total if window.counted else 0.0
    products = [torch.zeros_like(p) for p in run.parameters]
    # Only the plain attention kernel can be differentiated twice.
    with sdpa_kernel([SDPBackend.MATH]):
        for loss in _losses(run, window, run.task.losses):
            gradients = torch.autograd.grad(loss * weight, run.parameters, create_graph=True, allow_unused=True)
            pairs = [(g, u) for g, u in zip(gradients, signs, strict=True) if g is not None and g.requires_grad]
            if pairs:  # else the loss is linear
                along = torch.stack([(g * u).sum() for g, u in pairs]).sum()
                _add(products, torch.autograd.grad(along, run.parameters, allow_unused=True))
    return [u * product for u, product in zip(signs, _over_ranks(run, products), strict=True)]


def _losses(run: Run, window: Window, losses: Callable[..., dict[str, Tensor]]) -> Iterator[Tensor]:
    """The summed loss of each micro-batch, of the plain model: compiled ones have no second derivative."""
    for batch in window.batches:
        on_device = {name: tensor.to(run.world.device, non_blocking=True) for name, tensor in batch.items()}
        with run.policy.autocast_without_fp16():
            parts = losses(run.model, on_device)
        yield functools.reduce(torch.add, parts.values())


def _add(sums: list[Tensor], parts: tuple[Tensor | None, ...]) -> None:
    for total, part in zip(sums, parts, strict=True):
        if part is not None:
            total += part.detach()


def _over_ranks(run: Run, tensors: list[Tensor]) -> list[Tensor]:
    return [run.world.sum_(tensor) for tensor in tensors]


def _generator(run: Run, rank: int) -> torch.Generator:
    """Random numbers of their own for this run's step and rank."""
    key = hashlib.sha256(f"curvature {run.loader.seed} {run.step} {rank}".encode()).digest()
    return torch.Generator(run.world.device).manual_seed(int.from_bytes(key[:8], "little") >> 1)

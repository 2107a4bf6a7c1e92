"""Sharpness-aware minimisation: gradients are taken not at the weights but where, close by, the loss is worst.

    with perturbed(optimizer):          # the gradients at hand say where that is
        optimizer.zero_grad()
        loss_of(model).backward()       # anew, there
    optimizer.step()                    # from the weights as they were

`step(closure)` of an optimizer with `sam_rho` does the same with a closure. Foret et al. 2021,
https://arxiv.org/abs/2010.01412; adaptive: Kwon et al. 2021, https://arxiv.org/abs/2102.11600.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ava.errors import InputError
from ava.optimization.optimizers.engines.batch import compute_dtype, local
from ava.optimization.optimizers.wrappers.sum_of_squares import sum_of_squares

if TYPE_CHECKING:
    from ava.optimization.optimizers.composed import ComposedOptimizer


@contextmanager
def perturbed(optimizer: ComposedOptimizer) -> Iterator[Tensor]:
    """Within it the parameters stand at the edge of the ball of radius rho; after it, where they were, bit for bit.

        p <- p + rho g / (|g| + 1e-12);  adaptive: p <- p + rho p^2 g / (| |p| g | + 1e-12)

    The norm is over all parameters and their shards. Where it is not finite, nothing moves, and the step that
    follows is skipped.

    Args:
        optimizer: has the option `sam_rho`, and gradients that are complete: accumulated, averaged over ranks.

    Yields:
        The norm, 0-dim, on the device.
    """
    rho, is_adaptive = optimizer.whole["sam_rho"], optimizer.whole["sam_adaptive"]
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if rho is None or not parameters:
        problem = "there is no radius to perturb by." if rho is None else "there is no gradient to perturb along."
        raise InputError(problem, key="sam_rho", value=rho, hint="Set sam_rho=0.05, and call backward() first.")
    own = [local(p.detach()).clone() for p in parameters]
    with torch.no_grad():
        norm = _ascend(optimizer, parameters, rho, is_adaptive)
    try:
        yield norm
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, own, strict=True):
                local(parameter.detach()).copy_(value)
    optimizer.judged = norm


def _ascend(optimizer: ComposedOptimizer, parameters: list[Any], rho: float, is_adaptive: bool) -> Tensor:
    """Move the parameters to where the loss is worst, to first order."""
    gradients = [local(p.grad) for p in parameters]
    weighed = [abs(local(p)) * g for p, g in zip(parameters, gradients, strict=True)] if is_adaptive else gradients
    norm = sum_of_squares(parameters, weighed).sqrt()
    scale = optimizer.grad_scale_on(norm.device)
    # The direction does not depend on a loss scale; only the 1e-12 has to grow with it.
    pace = rho / (norm + 1e-12 * (1.0 if scale is None else scale))
    for parameter, gradient, weight in zip(map(local, parameters), gradients, weighed, strict=True):
        dtype = compute_dtype(parameter)
        direction = abs(parameter).to(dtype) * weight if is_adaptive else gradient
        moved = parameter.to(dtype) + pace.to(parameter.device, dtype) * direction
        is_sound = torch.isfinite(norm).to(parameter.device)
        parameter.copy_(torch.where(is_sound, moved, parameter))
    return norm if scale is None else norm / scale


def sharpen(optimizer: ComposedOptimizer, closure: Callable[[], float] | None) -> float:
    """Compute gradients where the loss is worst; one that is not finite, of either pass, skips the step.

    Args:
        optimizer: has the option `sam_rho`.
        closure: clears the gradients, computes them anew and returns the loss; called twice.

    Returns:
        The loss of the first call, at the weights themselves.

    Raises:
        InputError: there is no closure.
    """
    if closure is None:
        raise InputError(
            "needs two gradients a step, and step() got no closure to compute the second one with.",
            key="sam_rho", value=optimizer.whole["sam_rho"],
            hint="Call step(closure), or take the second gradient inside `with optimizer.perturbed():`.",
        )  # fmt: skip
    with torch.enable_grad():
        loss = closure()
        with perturbed(optimizer) as first, _kept_buffers_of_callees():
            closure()
    pairs = [(p, p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    second = sum_of_squares([p for p, _ in pairs], [g for _, g in pairs]) if pairs else first
    optimizer.judged = first + second.to(first.device)
    return loss


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """What is written into a model's buffers within it is undone: statistics of BatchNorm count a batch once."""
    own = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        _put_back(own)


@contextmanager
def _kept_buffers_of_callees() -> Iterator[None]:
    """The same for every module that is called within it: an optimizer does not know the model."""
    own: dict[int, tuple[Tensor, Tensor]] = {}

    def keep(module: nn.Module, arguments: Any) -> None:
        for buffer in module.buffers():
            if id(buffer) not in own:
                own[id(buffer)] = (buffer, buffer.detach().clone())

    handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
        _put_back(list(own.values()))


@torch.no_grad()
def _put_back(own: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in own:
        buffer.copy_(value)

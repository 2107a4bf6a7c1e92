"""The fused engine: torch's own kernels, for the sentences that equal one.

Torch's kernel divides by the gradient scale in place: with `grad_scale` set, `p.grad` holds the unscaled gradient
afterwards, as it does with torch.optim's `fused=True`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import Batch, localise
from ava.optimization.optimizers.sentence import Sentence
from ava.optimization.optimizers.stages.decay import coupled_decay, decoupled_decay
from ava.optimization.optimizers.stages.direction import divide
from ava.optimization.optimizers.stages.moments import adam_moments, along_gradient, heavy_ball, nesterov
from ava.optimization.optimizers.stages.write import descend

DEVICES = frozenset({"cpu", "cuda", "xpu"})


def fits(batch: Batch) -> bool:
    """Whether torch has this sentence as one kernel on this device."""
    return (
        batch.sentence in KERNELS
        and batch.parameters[0].device.type in DEVICES
        and batch.group["state"] == "dense"
        and not batch.group["stochastic_rounding"]
        and _is_walked_alike(localise(batch))
    )


def run(batch: Batch) -> None:
    """One update of every parameter of the batch."""
    found_inf = None if batch.skip is None else batch.skip.to(torch.float32)
    scale = None if batch.grad_scale is None else batch.grad_scale.to(torch.float32)
    KERNELS[batch.sentence](localise(batch), scale, found_inf)


def _is_walked_alike(batch: Batch) -> bool:
    """Whether an element has the same place in all of a parameter's tensors: torch's kernels walk over raw memory."""
    return all(
        _is_without_gaps(p)
        and all(
            p.stride() == x.stride() and p.dtype is x.dtype
            for x in (g, *(value for key, value in state.items() if key != "step"))
        )
        for p, g, state in zip(batch.parameters, batch.gradients, batch.states, strict=True)
    )


def _is_without_gaps(x: Tensor) -> bool:
    reach = sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) + 1
    return x.is_contiguous() or reach == x.numel()


def _adam(batch: Batch, scale: Tensor | None, found_inf: Tensor | None) -> None:
    group, states = batch.group, batch.states
    beta1, beta2 = group["betas"]
    steps = [state["step"] for state in states]
    # A skipped step does not count. A list is 3 times as fast to add as one number, on a CPU.
    one = torch.ones_like(steps[0]) if found_inf is None else 1 - found_inf
    torch._foreach_add_(steps, [one] * len(steps))
    kernel = torch._fused_adam_ if coupled_decay in batch.sentence else torch._fused_adamw_
    kernel(
        batch.parameters, batch.gradients, [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states], [], steps, lr=group["lr"], beta1=beta1, beta2=beta2,
        weight_decay=_decay(batch), eps=group["eps"], amsgrad=False, maximize=False,
        grad_scale=scale, found_inf=found_inf,
    )  # fmt: skip


def _sgd(batch: Batch, scale: Tensor | None, found_inf: Tensor | None) -> None:
    group, has_momentum = batch.group, heavy_ball in batch.sentence
    # Buffers start at zero, so the first step needs no rule of its own and may be skipped on the device.
    torch._fused_sgd_(
        batch.parameters, batch.gradients, [state["momentum_buffer"] for state in batch.states] if has_momentum else [],
        weight_decay=_decay(batch), momentum=group["momentum"] if has_momentum else 0.0, lr=group["lr"], dampening=0.0,
        nesterov=nesterov in batch.sentence, maximize=False, is_first_step=False,
        grad_scale=scale, found_inf=found_inf,
    )  # fmt: skip


def _decay(batch: Batch) -> float:
    """The decay that the sentence speaks of: none if it has no word for it."""
    spoken = coupled_decay in batch.sentence or decoupled_decay in batch.sentence
    return float(batch.group["weight_decay"]) if spoken else 0.0


_DECAYS: tuple[Sentence, ...] = ((), (coupled_decay,))
_DIRECTIONS: tuple[Sentence, ...] = ((along_gradient,), (heavy_ball,), (heavy_ball, nesterov))

KERNELS: dict[Sentence, Callable[[Batch, Tensor | None, Tensor | None], None]] = {
    (adam_moments, divide, descend): _adam,
    (adam_moments, divide, decoupled_decay, descend): _adam,
    (coupled_decay, adam_moments, divide, descend): _adam,
    **{(*decay, *direction, descend): _sgd for decay, direction in product(_DECAYS, _DIRECTIONS)},
}

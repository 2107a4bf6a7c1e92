"""The foreach engine: sentences written out as operations on lists of tensors, in place.

For small models, whose steps are mostly overhead: Python walks over the operations, not over the parameters. A
large parameter goes alone, so that what is in the making stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import Batch, compute_dtype, localise
from ava.optimization.optimizers.sentence import Sentence
from ava.optimization.optimizers.stages.decay import decoupled_decay
from ava.optimization.optimizers.stages.direction import sign
from ava.optimization.optimizers.stages.moments import interpolate
from ava.optimization.optimizers.stages.write import descend
from ava.optimization.optimizers.storage.dense import Dense

CHUNK = 2**20
"""Elements updated together: enough to hide the overhead, few enough for the cache."""


def fits(batch: Batch) -> bool:
    """Whether the sentence is written out here, for a plain step: no scale, no tensor as learning rate."""
    parameter = batch.parameters[0]
    return (
        batch.sentence in LISTS
        and batch.grad_scale is None
        and isinstance(batch.codec, Dense)
        and compute_dtype(parameter) is parameter.dtype
        and not isinstance(batch.group["lr"], Tensor)
    )


def run(batch: Batch) -> None:
    """One update of every parameter of the batch."""
    batch, update = localise(batch), LISTS[batch.sentence]
    for chunk in _chunks(batch.parameters):
        update(batch, chunk)


def _chunks(parameters: list[Tensor]) -> Iterator[slice]:
    """Runs of parameters of at most CHUNK elements, or of one parameter."""
    start = total = 0
    for end, size in enumerate([parameter.numel() for parameter in parameters]):
        if total + size > CHUNK and end > start:
            yield slice(start, end)
            start, total = end, 0
        total += size
    yield slice(start, len(parameters))


def _lion(batch: Batch, chunk: slice) -> None:
    group, parameters, gradients = batch.group, batch.parameters[chunk], batch.gradients[chunk]
    averages = [state["exp_avg"] for state in batch.states[chunk]]
    lr, (beta1, beta2) = group["lr"], group["betas"]
    shrink: float | Tensor = 1 - lr * group["weight_decay"] if decoupled_decay in batch.sentence else 1.0
    if batch.skip is not None:
        # A gradient equal to the average moves the average by nothing, bit for bit, and 0 * sign is nothing too.
        gradients = [m.where(batch.skip, g) for m, g in zip(averages, gradients, strict=True)]
        keep = (~batch.skip).to(parameters[0].dtype)
        shrink = 1 - (1 - shrink) * keep
    updates = torch._foreach_lerp(averages, gradients, 1 - beta1)
    torch._foreach_sign_(updates)
    if batch.skip is not None:
        torch._foreach_mul_(updates, keep)
    if decoupled_decay in batch.sentence:
        torch._foreach_mul_(parameters, shrink)
    torch._foreach_add_(parameters, updates, alpha=-lr)
    torch._foreach_lerp_(averages, gradients, 1 - beta2)


LISTS: dict[Sentence, Callable[[Batch, slice], None]] = {
    (interpolate, sign, descend): _lion,
    (interpolate, sign, decoupled_decay, descend): _lion,
}

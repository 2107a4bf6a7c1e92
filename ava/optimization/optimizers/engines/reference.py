"""The reference engine: each parameter's rules in plain torch, one operation at a time.

This is the truth that independent implementations are compared with, and that every other engine must equal.
"""

from __future__ import annotations

from torch import Tensor

from ava.optimization.optimizers.engines.batch import Batch, compute_dtype, counter_dtype
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, is_counted, slots_of


def run(batch: Batch) -> None:
    """One update of every parameter of the batch."""
    for parameter, gradient, state in zip(batch.parameters, batch.gradients, batch.states, strict=True):
        _update(batch, parameter, gradient, state)


def _update(batch: Batch, parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> None:
    dtype, slots = compute_dtype(parameter), slots_of(batch.sentence)
    operands: dict[str, Tensor | float] = {slot.name: batch.codec.decode(state, slot, dtype) for slot in slots}
    gradient = gradient.to(dtype)
    if batch.grad_scale is not None:
        gradient = gradient / batch.grad_scale
    counted = is_counted(batch.sentence)
    if counted:
        count = state["step"] + 1
        # On a processor the number itself, which costs nothing to read there; on an accelerator, what stays there.
        operands["step"] = count.item() if count.is_cpu else count.to(counter_dtype(count.device))
    t = Operands(p=parameter.to(dtype), g=gradient, **operands)

    h = Hyperparameters(batch.group)
    for word in batch.sentence:
        word.rule(t, h)

    if counted:
        _write(state["step"], count, batch.skip)
    for slot in slots:
        for key, part in batch.codec.encode(vars(t)[slot.name], slot).items():
            _write(state[key], part, batch.skip)
    _write(parameter, vars(t)["p"], batch.skip)


def _write(target: Tensor, value: Tensor, skip: Tensor | None) -> None:
    """Replace, unless the step is skipped: by selection, for 0 * NaN would be NaN."""
    target.copy_(value if skip is None else target.where(skip, value.to(target.dtype)))

"""The reference engine: each parameter's rules in plain torch, one operation at a time.

This is the truth that independent implementations are compared with, and that every other engine must equal.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines import random
from ava.optimization.optimizers.engines.batch import (
    Batch,
    Conversation,
    compute_dtype,
    local,
    localise,
    wide_dtype,
)  # fmt: skip
from ava.optimization.optimizers.engines.space import TensorSpace
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, common_slots, own_slots
from ava.optimization.optimizers.storage.bfloat16 import round_at_random
from ava.optimization.optimizers.storage.choice import codec_of, counts_steps

ROUNDING = 15
"""The stream of random bits that round parameters; those below round slots, two slots a stream."""


def run(batch: Batch) -> Conversation | None:
    """One update of every parameter of the batch."""
    if any(word.totals for word in batch.sentence):
        return _run_together(batch)
    for index in range(len(batch.parameters)):
        update = _Update(batch, index)
        update.speak(0, len(batch.sentence))
        update.write()
    return None


def _run_together(batch: Batch) -> Conversation:
    """All parameters go through the sentence side by side, as far as the next sum over all of them."""
    updates = [_Update(batch, index) for index in range(len(batch.parameters))]
    spoken = 0
    for place, word in enumerate(batch.sentence):
        if word.totals:
            for update in updates:
                update.speak(spoken, place)
            totals = yield {name: _summed(updates, name) for name in word.totals}
            for update in updates:
                vars(update.operands).update(totals)
            spoken = place
    for update in updates:
        update.speak(spoken, len(batch.sentence))
        update.write()
    return {slot.name: updates[0].value(slot.name) for slot in common_slots(batch.sentence)}


def _summed(updates: list[_Update], name: str) -> Tensor:
    dtype = wide_dtype(local(updates[0].parameter).device)
    sums = [update.space.sum(update.value(name)).to(dtype) for update in updates]
    return functools.reduce(torch.add, sums)


def _only(batch: Batch, index: int) -> Batch:
    """One parameter's batch."""
    return replace(
        batch, parameters=[batch.parameters[index]], gradients=[batch.gradients[index]],
        states=[batch.states[index]], numbers=[batch.numbers[index]],
    )  # fmt: skip


class _Update:
    """One parameter on its way through the sentence."""

    def __init__(self, batch: Batch, index: int) -> None:
        self.batch, self.whole = batch, batch.parameters[index]
        part = localise(_only(batch, index))
        (self.parameter,), (self.state,), (number,) = part.parameters, part.states, part.numbers
        self.slots, self.counted = own_slots(batch.sentence), counts_steps(batch.sentence, batch.group)
        # Drawing knows the numbers, not this object: it would keep the gradient alive until the collector comes.
        numbers: dict[str, Any] = {}
        self.space = TensorSpace(self.whole, functools.partial(_key, numbers, batch.group["seed"], number))
        self.operands = self._begin(part.gradients[0])
        numbers["step"] = vars(self.operands).get("step")

    def _begin(self, gradient: Tensor) -> Operands:
        batch, parameter = self.batch, self.parameter.to(compute_dtype(self.parameter))
        gradient = gradient.to(parameter.dtype)
        if batch.grad_scale is not None:
            gradient = gradient / batch.grad_scale
        operands: dict[str, Any] = {
            slot.name: self._codec(slot).decode(self.state, slot, parameter) for slot in self.slots
        }
        self.before = dict(operands)
        if self.counted:
            self.count = self.state["step"] + 1
            operands["step"] = _number(self.count, parameter.device)
        common = {name: _number(value, parameter.device) for name, value in batch.common.items()}
        size, rows = self.whole.numel(), self.whole.shape[0] if self.whole.ndim > 1 else 1
        return Operands(
            self.space, p=parameter, g=gradient, lr=batch.group["lr"], size=size, rows=rows,
            cols=size // max(1, rows), **operands, **common,
        )  # fmt: skip

    def speak(self, first: int, last: int) -> None:
        """Apply the rules of a part of the sentence."""
        h = Hyperparameters(self.batch.group)
        for word in self.batch.sentence[first:last]:
            word.rule(self.operands, h)

    def value(self, name: str) -> Tensor:
        """An operand, as a tensor."""
        value = vars(self.operands)[name]
        return value if isinstance(value, Tensor) else torch.tensor(value, device=self.parameter.device)

    def write(self) -> None:
        """Replace parameter, slots and counter, unless the step is skipped."""
        for number, slot in enumerate(self.slots):
            if vars(self.operands)[slot.name] is self.before[slot.name]:
                continue  # nothing has assigned it: stored anew, it might be rounded anew
            bits = functools.partial(self._bits, number)
            for key, part in self._codec(slot).encode(self.value(slot.name), slot, bits).items():
                self._replace(self.state[key], part)
        value = self.value("p")
        if self.batch.group["stochastic_rounding"] and self.parameter.dtype.itemsize == 2:
            value = round_at_random(value, self.parameter.dtype, self._bits(2 * ROUNDING))
        self._replace(self.parameter, value)
        if self.counted:
            self._replace(self.state["step"], self.count)

    def _replace(self, target: Tensor, value: Tensor) -> None:
        """By selection, for 0 * NaN would be NaN."""
        skip = self.batch.skip
        target.copy_(value if skip is None else target.where(skip, value.to(target.dtype)))

    def _codec(self, slot: Any) -> Any:
        return codec_of(slot, self.batch.group["state"], self.parameter)

    def _bits(self, number: int) -> Tensor:
        """16 of the 32 bits that each two slots share."""
        return (self.space.draws(number // 2) >> (16 * (number % 2))) & 0xFFFF


def _key(numbers: dict[str, Any], seed: int, number: int, stream: int) -> int | Tensor:
    step = numbers["step"]
    step = step.to(torch.int64) if isinstance(step, Tensor) else int(step)
    return random.stream_key(seed, number, step, stream)


def _number(value: Tensor, device: torch.device) -> float | Tensor:
    """On a processor the number itself, which costs nothing to read there; on an accelerator, what stays there."""
    return value.item() if value.is_cpu else value.to(device, wide_dtype(device))

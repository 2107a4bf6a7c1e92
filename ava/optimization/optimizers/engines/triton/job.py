"""Kernels and the parameters they are run over: tables of addresses, pieces of work, scratch memory, all on the device.

Nothing here waits for the device: what the host knows goes there, what the device knows stays.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ava.optimization.optimizers.engines import random
from ava.optimization.optimizers.engines.batch import Batch, Totals
from ava.optimization.optimizers.engines.sharded import needs_no_neighbour
from ava.optimization.optimizers.engines.triton.kernel import load, print_kernels
from ava.optimization.optimizers.engines.triton.layout import COLUMN, Layout
from ava.optimization.optimizers.engines.triton.plan import Plan, plan_for

ALIGNMENT = 16
_OPTIONS = {"enable_fp_fusion": True}
"""A product and a sum in one rounding; triton's versions differ in what they do unasked."""
_ADDRESS, _DTYPE = Tensor.data_ptr, attrgetter("dtype")


class Kernels:
    """A sentence's kernels, and the plans of the parameters they were run over.

    Args:
        layout: what they are printed from.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.source, self.order = print_kernels(layout)
        self.functions: dict[str, Callable[..., Any]] = load(self.source)
        alone = needs_no_neighbour(layout.graph, layout.schedule, draws=bool(layout.streams))
        self.fits_shards = alone and not layout.factored
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def plan(self, parameters: list[Tensor]) -> Plan:
        """The pieces of work of parameters of these shapes."""
        shapes = tuple([tuple(p.shape) for p in parameters])
        key = shapes, parameters[0].device
        if key not in self._plans:
            if len(self._plans) >= 8:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = plan_for(self.layout, shapes, parameters[0].device)
        return self._plans[key]


class Job:
    """Kernels bound to parameters, their state and scratch memory, for as many steps as these stay.

    Args:
        kernels: the sentence's.
        batch: plain tensors of one device.
        places: which of the batch's parameters are meant.
    """

    def __init__(self, kernels: Kernels, batch: Batch, places: list[int]) -> None:
        self.kernels, self.layout = kernels, kernels.layout
        self.places = None if len(places) == len(batch.parameters) else places
        self.parameters = [batch.parameters[i] for i in places]
        self.device, self.seed = self.parameters[0].device, batch.group["seed"]
        self.plan = kernels.plan(self.parameters)
        table = self.plan.table.copy()
        table[:, COLUMN["BASE"]] = [_base(self.seed, batch.numbers[i]) for i in places]
        table[:, COLUMN["P"]] = self._addresses = list(map(_ADDRESS, self.parameters))
        states = [batch.states[i] for i in places]
        # A stale address would be somebody else's memory: what was bound stays alive, whoever lets go of it.
        self._held = [[state[key] for state in states] for _, key in parts(self.layout)]
        for (column, _), held in zip(parts(self.layout), self._held, strict=True):
            table[:, column] = list(map(_ADDRESS, held))
        self._table = _upload(torch.from_numpy(table), self.device)
        layout, double = self.layout, _zeros_on(self.device)
        self.num_pieces = len(self.plan.items["walk"])
        self._uniforms = double(len(places), layout.num_uniforms)
        self._scratch = double(max(1, self.plan.num_scratch))
        self._sums = double(max(1, layout.gathered("sum total")), max(1, self.num_pieces))
        self._shared = double(len(layout.common) + len(layout.totals) or 1)
        self._never = torch.zeros((), dtype=torch.uint8, device=self.device)
        self._gradients_at: list[int] = []
        self._take(batch, self._gradients(batch))

    def refresh(self, batch: Batch) -> bool:
        """Take this step's gradients and numbers; False where something lies elsewhere than is known."""
        gradients = self._gradients(batch)
        is_current = (
            list(map(_ADDRESS, self.parameters)) == self._addresses
            and batch.group["seed"] == self.seed
            and are_plain(gradients, self.layout.dtype)
            and (not self.layout.is_aligned or are_aligned(gradients))
            and on_device(batch) == self.layout.on_device
        )
        if is_current:
            self._take(batch, gradients)
        return is_current

    def _gradients(self, batch: Batch) -> list[Tensor]:
        return batch.gradients if self.places is None else [batch.gradients[i] for i in self.places]

    def _take(self, batch: Batch, gradients: list[Tensor]) -> None:
        addresses, layout = list(map(_ADDRESS, gradients)), self.layout
        if addresses != self._gradients_at:
            self._gradients_at = addresses
            self._gradient_table = _upload(torch.tensor(addresses, dtype=torch.int64), self.device)
        self._skip = self._never if batch.skip is None else batch.skip.view(torch.uint8)
        self._hyper: list[Any] = []
        for name in layout.inputs:
            value = _value(batch, name)
            self._hyper += [value] if name in layout.on_device else _halves(float(value))
        for place, name in enumerate(layout.common):
            self._shared[place].copy_(batch.common[name], non_blocking=True)

    def run(self, first: int, last: int, totals: Totals) -> Totals:
        """Launch passes `first` to `last`.

        Args:
            first: the first pass.
            last: the last one; `layout.end` stands for what comes behind it.
            totals: the sums over all parameters that are known.

        Returns:
            This batch's part of the sums that follow pass `last`, 0-dim on the device.
        """
        layout = self.layout
        for place, name in enumerate(layout.totals):
            if name in totals:
                self._shared[len(layout.common) + place].copy_(totals[name], non_blocking=True)
        with _on(self.device):
            for number in range(first, last + 1):
                for name in self.kernels.order[number]:
                    self._launch(name)
        return {name: self._part(name) for name, told in layout.told.items() if told == last}

    def _launch(self, name: str) -> None:
        function, kind = self.kernels.functions[name], name.partition("_")[0]
        if kind == "between":
            if self.parameters:
                function[(len(self.parameters),)](  # type: ignore[index]
                    self._table, self._uniforms, self._scratch, self._sums, self._shared, self.num_pieces, self._skip,
                    *self._hyper, **_OPTIONS,
                )  # fmt: skip
            return
        items = self.plan.items[kind]
        if len(items):
            function[(len(items),)](  # type: ignore[index]
                self._table, self._gradient_table, items, self._uniforms, self._scratch, self._sums, self.num_pieces,
                self._skip, **_OPTIONS,
            )  # fmt: skip

    def _part(self, name: str) -> Tensor:
        """What this batch adds to a sum over all parameters."""
        node = self.layout.graph.totals[name]
        if node.extent == "uniform":
            return self._uniforms[:, self.layout.uniform(node)].sum()
        same = [n for n in self.layout.schedule.passes[self.layout.told[name]].sums if n.op in ("sum", "total")]
        place = next(i for i, n in enumerate(same) if n.op == "total" and n.name == name)
        return self._sums[place, : self.num_pieces].sum()

    def common(self) -> Totals:
        """The new values of what all parameters share; those that no rule has assigned are left out."""
        return {
            name: self._uniforms[0, self.layout.uniform(node)].clone()
            for name, node in self.layout.schedule.results.items()
            if name in self.layout.common and node in self.layout.places
        }


def on_device(batch: Batch) -> frozenset[str]:
    """The hyperparameters that are tensors on the batch's own device, where alone they are known."""
    device = batch.parameters[0].device
    held = {f"h.{name}": value for name, value in batch.group.items()} | {"grad_scale": batch.grad_scale}
    return frozenset(name for name, value in held.items() if isinstance(value, Tensor) and value.device == device)


def parts(layout: Layout) -> Iterator[tuple[int, str]]:
    """Column of the table and key in the state of all that a parameter keeps."""
    if layout.counts:
        yield COLUMN["STEP"], "step"
    for store in layout.stores.values():
        for place, (key, _) in enumerate(store.parts("")):
            yield store.column + place, key
    yield from ((column, name) for name, column in layout.small.items())


def are_plain(tensors: list[Tensor], dtype: torch.dtype) -> bool:
    """Whether all are one piece of memory, of one type."""
    try:
        return set(map(_DTYPE, tensors)) == {dtype} and all(map(Tensor.is_contiguous, tensors))
    except RuntimeError:  # what sparse tensors answer
        return False


def are_aligned(tensors: list[Tensor]) -> bool:
    """Whether 16 bytes can be loaded at once."""
    return not any(address % ALIGNMENT for address in map(_ADDRESS, tensors))


def _base(seed: int, number: int) -> int:
    """What sets a parameter's random numbers apart from others'; the kernel adds step and stream."""
    mask = 0xFFFFFFFF
    start = random.mix((seed & mask) ^ ((seed >> 32) & mask))
    return int(random.mix((start + number * random.GOLDEN) & mask))


def _value(batch: Batch, name: str) -> Any:
    if name == "grad_scale":
        return batch.grad_scale
    key, _, place = name.removeprefix("h.").partition(".")
    value = batch.group[key]
    if value is None:  # a learning rate that the rule makes itself
        return math.nan
    return value[int(place)] if place else value


def _halves(value: float) -> list[float]:
    """A float64 as the sum of two float32s, for that is how triton passes a float."""
    upper = float(np.float32(value))
    return [upper, value - upper if math.isfinite(value) else 0.0]


def _upload(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for it."""
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _zeros_on(device: torch.device) -> Callable[..., Tensor]:
    """Makes tensors of float64 zeros."""
    return lambda *shape: torch.zeros(shape, dtype=torch.float64, device=device)


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Within it kernels are launched on the device."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    manager: contextlib.AbstractContextManager[Any] = getattr(torch, device.type).device(device)
    return manager

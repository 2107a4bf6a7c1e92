"""One kernel and the parameters it is run over: tables of addresses, pieces of work, scratch memory."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ava.optimization.optimizers.engines.batch import Batch
from ava.optimization.optimizers.engines.native.layout import FIRST_UNIFORMS, ITEM_COLUMNS, TENSOR_COLUMNS, Layout
from ava.optimization.optimizers.engines.sharded import needs_no_neighbour
from ava.optimization.optimizers.storage.factored import square_shape

Table = NDArray[np.int64]
_ADDRESS, _IS_CONTIGUOUS, _DTYPE = Tensor.data_ptr, Tensor.is_contiguous, attrgetter("dtype")
_COLUMN = {name: place for place, name in enumerate(TENSOR_COLUMNS)}
CHUNK = 32 * 1024
"""Elements of a piece of work: enough to hide its overhead, few enough to spread over threads."""
ELEMENTS_OF_A_THREAD = 256 * 1024
"""A thread with less than so many elements is not worth its start."""
WAVE = 512 * 1024
"""Elements that go through all passes before the next do, so that a later pass finds them in the cache."""


class Kernel:
    """A compiled sentence.

    Args:
        layout: what it was printed from.
        library: where it is loaded.
    """

    def __init__(self, layout: Layout, library: ctypes.CDLL) -> None:
        self.layout, self.function = layout, library.run
        self.function.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_void_p] * 2 + [ctypes.c_int64] + [ctypes.c_void_p] * 5
        self.function.restype = None
        self.end = len(layout.schedule.passes)
        self.fits_shards = needs_no_neighbour(layout.graph, layout.schedule, draws=layout.draws)
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def plan(self, parameters: list[Tensor]) -> Plan:
        """The pieces of work of parameters of these sizes."""
        key: tuple[Any, ...] = tuple([p.numel() for p in parameters])
        if self.layout.needs_matrix:
            key = tuple([p.shape for p in parameters])
        if key not in self._plans:
            if len(self._plans) >= 8:
                self._plans.pop(next(iter(self._plans)))
            self._plans[key] = Plan(self.layout, [tuple(p.shape) for p in parameters])
        return self._plans[key]


class Plan:
    """Tables for parameters of given shapes.

    Args:
        layout: of the kernel.
        shapes: of the parameters.
    """

    def __init__(self, layout: Layout, shapes: list[tuple[int, ...]]) -> None:
        self.layout, self.used = layout, FIRST_UNIFORMS
        self.tensors: Table = np.zeros((len(shapes), layout.width), np.int64)
        items: list[list[int]] = []
        for number, shape in enumerate(shapes):
            row = self._tensor(shape)
            row["FIRST_ITEM"] = len(items)
            items += self._items(number, row)
            row["NUM_ITEMS"] = len(items) - row["FIRST_ITEM"]
            self.tensors[number, : len(TENSOR_COLUMNS)] = [row[name] for name in TENSOR_COLUMNS]
        self.items: Table = np.array(items, np.int64).reshape(-1, len(ITEM_COLUMNS))
        self.elements = int(self.tensors[:, _COLUMN["N"]].sum())
        self.waves = self._waves()

    def _take(self, size: int) -> int:
        """The place of so many numbers in the scratch memory; pieces do not share a cache line."""
        place, self.used = self.used, self.used + -(-size // 8) * 8
        return place

    def _tensor(self, shape: tuple[int, ...]) -> dict[str, int]:
        size = int(np.prod(shape, dtype=np.int64))
        rows = shape[0] if len(shape) > 1 else 1
        row = dict.fromkeys(TENSOR_COLUMNS, 0) | {
            "N": size,
            "ROWS": rows,
            "COLS": max(1, size // max(1, rows)),
            "SQUARE_COLS": square_shape(max(1, size))[1],
        }
        row["UNIFORMS"] = self._take(self.layout.num_places("uniform"))
        row["ROW_ARRAYS"] = self._take(self.layout.num_places("row") * row["ROWS"])
        row["COL_ARRAYS"] = self._take(self.layout.num_places("column") * row["COLS"])
        return row

    def _items(self, number: int, row: dict[str, int]) -> list[list[int]]:
        layout, size = self.layout, row["N"]
        row_sums, col_sums, factored = layout.count("row_mean"), layout.count("col_mean"), layout.num_factored
        # A piece's column sums are as long as the columns: it has to be long enough to be worth them.
        widest = max(row["COLS"] if col_sums else 0, row["SQUARE_COLS"] if factored else 0)
        chunk = max(CHUNK, -(-64 * widest // CHUNK) * CHUNK)
        items = []
        for begin in range(0, size, chunk):
            end = min(size, begin + chunk)
            rows = (end - 1) // row["COLS"] - begin // row["COLS"] + 1
            square = (end - 1) // row["SQUARE_COLS"] - begin // row["SQUARE_COLS"] + 1
            items.append([
                number, begin, end, self._take(layout.count("sum total")), self._take(row_sums * rows),
                self._take(col_sums * row["COLS"]), self._take(factored * square),
                self._take(factored * row["SQUARE_COLS"]),
            ])  # fmt: skip
        return items

    def _waves(self) -> Table:
        """Runs of parameters: first and last parameter, first and last piece."""
        sizes, first_item, num_items = (
            self.tensors[:, TENSOR_COLUMNS.index(c)] for c in ("N", "FIRST_ITEM", "NUM_ITEMS")
        )
        limit = WAVE if len(self.layout.schedule.passes) > 1 else 16 * WAVE
        waves, start, held = [], 0, 0
        for number, size in enumerate(sizes):
            if held and held + size > limit:
                waves.append((start, number))
                start, held = number, 0
            held += size
        waves.append((start, len(sizes)))
        ends = first_item + num_items
        return np.array([(a, z, first_item[a], ends[z - 1]) for a, z in waves], np.int64)


class Job:
    """A kernel bound to parameters, their state and its own scratch memory, for as many steps as these stay.

    Args:
        kernel: the compiled sentence.
        batch: plain tensors of a processor.
        places: which of the batch's parameters are meant.
    """

    def __init__(self, kernel: Kernel, batch: Batch, places: list[int]) -> None:
        self.kernel, self.batch, layout = kernel, batch, kernel.layout
        self.places = None if len(places) == len(batch.parameters) else places
        self.parameters = [batch.parameters[i] for i in places]
        self.states = [batch.states[i] for i in places]
        self.plan = kernel.plan(self.parameters)
        self._table, self._scratch = self.plan.tensors.copy(), np.zeros(max(1, self.plan.used), np.float64)
        self._table[:, _COLUMN["NUMBER"]] = [batch.numbers[i] for i in places]
        self._table[:, _COLUMN["P"]] = self._addresses = list(map(_ADDRESS, self.parameters))
        # A stale address would be somebody else's memory: what was bound stays alive, whoever lets go of it.
        self._held = [self._hold(column, key) for column, key in _parts(layout)]
        self._totals = np.zeros(max(1, len(layout.totals)))
        self._take(batch, self._gradients(batch))

    def _hold(self, column: int, key: str) -> list[torch.UntypedStorage]:
        """Bind one part of every parameter's state to a column of the table."""
        held = [state[key] for state in self.states]
        self._table[:, column] = list(map(_ADDRESS, held))
        return [value.untyped_storage() for value in held]

    def refresh(self, batch: Batch) -> bool:
        """Take this step's gradients and numbers; False where they or the parameters lie elsewhere than is known."""
        gradients = self._gradients(batch)
        is_current = (
            list(map(_ADDRESS, self.parameters)) == self._addresses
            and set(map(_DTYPE, gradients)) == {self.kernel.layout.dtype}
            and _are_contiguous(gradients)
        )
        if is_current:
            self._take(batch, gradients)
        return is_current

    def _gradients(self, batch: Batch) -> list[Tensor]:
        return batch.gradients if self.places is None else [batch.gradients[i] for i in self.places]

    def _take(self, batch: Batch, gradients: list[Tensor]) -> None:
        self.batch, layout = batch, self.kernel.layout
        self._table[:, _COLUMN["G"]] = list(map(_ADDRESS, gradients))
        self._hyper = np.array([self._input(name) for name in layout.inputs] or [0.0])
        shared = [float(batch.common[name].numpy()) for name in layout.common]
        self._common = np.array(shared + shared or [0.0])

    def _input(self, name: str) -> float:
        if name == "grad_scale":
            return float(self.batch.grad_scale.numpy())  # type: ignore[union-attr]
        key, _, place = name.removeprefix("h.").partition(".")
        value = self.batch.group[key]
        if value is None:  # a learning rate that the rule makes itself
            return math.nan
        return float(value[int(place)] if place else value)

    def run(self, first: int, last: int, totals: dict[str, float]) -> dict[str, float]:
        """Run passes `first` to `last`.

        Args:
            first: the first pass.
            last: the last one; `kernel.end` also writes counters and all that is not one value an element.
            totals: the sums over all parameters that are known.

        Returns:
            This batch's part of the sums.
        """
        names, plan = self.kernel.layout.totals, self.plan
        for place, name in enumerate(names):
            self._totals[place] = totals.get(name, 0.0)
        self.kernel.function(
            first, last, self._threads(), self.batch.group["seed"], self._table.ctypes.data,
            plan.items.ctypes.data, len(plan.waves), plan.waves.ctypes.data, self._hyper.ctypes.data,
            self._common.ctypes.data, self._totals.ctypes.data, self._scratch.ctypes.data,
        )  # fmt: skip
        return dict(zip(names, self._totals.tolist(), strict=False))

    def _threads(self) -> int:
        """As many of torch's threads as have enough to do: waiting for each other costs more than a small step."""
        return max(1, min(torch.get_num_threads(), self.plan.elements // ELEMENTS_OF_A_THREAD))

    def common(self) -> dict[str, float]:
        """The new values of what all parameters share."""
        names = self.kernel.layout.common
        return dict(zip(names, self._common[len(names) : 2 * len(names)].tolist(), strict=True))


def _are_contiguous(tensors: list[Tensor]) -> bool:
    try:
        return all(map(_IS_CONTIGUOUS, tensors))
    except RuntimeError:  # what sparse tensors answer
        return False


def _parts(layout: Layout) -> Iterator[tuple[int, str]]:
    """Column of the table and key in the state of all that a parameter keeps."""
    if layout.counts:
        yield _COLUMN["STEP"], "step"
    for store in layout.stores.values():
        for place, (key, _) in enumerate(store.parts):
            yield store.column + place, key
    yield from ((column, name) for name, column in layout.small.items())

"""The measurement as one C++ kernel over all gradients of a processor (`kernel.hpp`): one walk, any mixture of types.

Without a compiler plain torch operations take its place, and one warning says so.
"""

from __future__ import annotations

import ctypes
import functools
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from operator import attrgetter
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.native.build import NoCompiler, load, tell

CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
"""As in the kernel."""
ELEMENTS_OF_A_THREAD = 256 * 1024
"""A thread with less than so many elements is not worth its start."""
_ADDRESS, _SIZE, _IS_CONTIGUOUS = Tensor.data_ptr, Tensor.numel, Tensor.is_contiguous
_DTYPE, _IS_CPU = attrgetter("dtype"), attrgetter("is_cpu")
Column: TypeAlias = "array[int]"


@dataclass(frozen=True)
class Walked:
    """What the kernel found in n tensors.

    Attributes:
        norms: (n + 1,) float64: of each tensor, and of all together.
        narrow: (n + 1,) float32: of each tensor, its largest number where it is beyond float32; and 1 if any element is
            not finite, else 0.
        summary: (6,) float64, where it was asked for: sum, numbers of zeros, NaNs and infinities, maximum, -minimum.
    """

    norms: Tensor
    narrow: Tensor
    summary: Tensor


@dataclass(frozen=True)
class Table:
    """Tensors as the kernel takes them.

    Attributes:
        addresses: of their elements, which fill one piece of memory each.
        sizes: how many elements they have.
        codes: of their types.
        tensors: themselves.
        held: what lies at the addresses.
        copies: the places of those that are copies, for the tensor has gaps.
    """

    addresses: Column
    sizes: Column
    codes: Column
    tensors: Sequence[Tensor]
    held: Sequence[Tensor]
    copies: list[int]

    @property
    def elements(self) -> int:
        """How many elements they have together."""
        return sum(self.sizes)

    def head(self) -> tuple[int, int]:
        """How many tensors, and how many threads they are worth."""
        return len(self.sizes), max(1, min(torch.get_num_threads(), self.elements // ELEMENTS_OF_A_THREAD))

    def columns(self) -> tuple[int, int, int]:
        """Where addresses, sizes and codes lie."""
        return self.addresses.buffer_info()[0], self.sizes.buffer_info()[0], self.codes.buffer_info()[0]


def tabulate(tensors: Sequence[Tensor]) -> Table | None:
    """The table of dense tensors in a processor's memory; None where one is another, or without a kernel.

    Each attribute is read of all tensors at once: of a thousand small ones, this is half of what a measurement costs.
    """
    if set(map(type, tensors)) - {Tensor} or not all(map(_IS_CPU, tensors)):
        return None
    dtypes = list(map(_DTYPE, tensors))
    if (kinds := set(dtypes)) - CODES.keys() or library() is None:
        return None
    held, copies = tensors, list[int]()
    try:
        if not all(map(_IS_CONTIGUOUS, tensors)):
            copies = [place for place, tensor in enumerate(tensors) if not has_no_gaps(tensor)]
            held = [tensor.contiguous() if place in copies else tensor for place, tensor in enumerate(tensors)]
    except RuntimeError:  # what sparse tensors answer
        return None
    codes = [CODES[dtypes[0]]] * len(dtypes) if len(kinds) == 1 else map(CODES.__getitem__, dtypes)
    return Table(
        array("q", map(_ADDRESS, held)), array("q", map(_SIZE, held)), array("q", codes), tensors, held, copies
    )


def walk(table: Table, *, statistics: bool) -> Walked:
    """Measure tensors; `statistics` says whether to fill `summary`."""
    count = len(table.held)
    norms, narrow = torch.empty(count + 1, dtype=torch.float64), torch.empty(count + 1)
    summary = torch.empty(6, dtype=torch.float64)
    library().gather(*table.head(), int(statistics), *table.columns(), *map(_ADDRESS, (norms, narrow, summary)))
    return Walked(norms, narrow, summary)


def is_due(factor: Tensor, found_inf: Tensor) -> bool:
    """Whether a factor, 0-dim float64 on a processor, is below 1 and `found_inf`, 0-dim float32 there, is 0."""
    return bool(library().is_due(factor.data_ptr(), found_inf.data_ptr()))


def scale(table: Table, factor: Tensor) -> None:
    """Multiply tensors, in place, by a factor: 0-dim float64, on a processor, and read by the kernel."""
    library().scale(*table.head(), *table.columns(), factor.data_ptr())
    for place in table.copies:
        table.tensors[place].copy_(table.held[place])


def has_no_gaps(tensor: Tensor) -> bool:
    """Whether its elements fill one piece of memory, each once, in whatever order."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


@functools.cache
def library() -> Any:
    """The loaded kernel, or None without a compiler."""
    source = (resources.files(__package__) / "kernel.hpp").read_text(encoding="utf-8")
    try:
        loaded: Any = load(source)
    except NoCompiler as error:
        tell(str(error))
        return None
    whole, place = ctypes.c_int64, ctypes.c_void_p
    loaded.gather.argtypes, loaded.gather.restype = [whole] * 3 + [place] * 6, None
    loaded.scale.argtypes, loaded.scale.restype = [whole] * 2 + [place] * 4, None
    loaded.is_due.argtypes, loaded.is_due.restype = [place] * 2, whole
    return loaded

"""What the memory of a training is taken up by: bytes of tensors by kind, each storage counted once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All plain tensors within a value: in dictionaries and lists, local shards of distributed ones, and the parts of
    tensors that are made of others (quantized state).
    """
    if isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, Tensor):
        yield from _plain(value)


def _plain(tensor: Tensor) -> Iterator[Tensor]:
    if hasattr(tensor, "to_local"):
        yield from _plain(tensor.to_local())
    elif hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _plain(getattr(tensor, name))
    elif tensor.layout == torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout == torch.strided:
        yield tensor


def storage_of(tensor: Tensor) -> tuple[tuple[str, int], int]:
    """Which memory a plain tensor lies in, and its size in bytes; views of one memory give the same."""
    storage = tensor.untyped_storage()
    return (str(tensor.device), storage.data_ptr()), storage.nbytes()


def num_bytes(values: Iterable[Any]) -> int:
    """The bytes of all tensors within `values`, on whatever device; what they share counts once."""
    return sum(dict(storage_of(tensor) for value in values for tensor in tensors_in(value)).values())


class Saved:
    """Follows what autograd keeps for the backward pass.

    Every tensor that is kept passes through `saved_tensors_hooks`; it is counted until the backward pass lets go of
    it. So the peak is that of one micro-batch, however many there are. Inner hooks have precedence: what is
    recomputed, or kept on the host, does not come here.

    Args:
        left_out: tensors that lie in memory in any case: weights and buffers.

    Attributes:
        peak: the most bytes kept at one time.
    """

    def __init__(self, left_out: Iterable[Tensor]) -> None:
        self.peak = 0
        self._now = 0
        self._holders: dict[tuple[str, int], int] = {}
        self._left_out = {storage_of(tensor)[0] for tensor in tensors_in(list(left_out))}

    @contextmanager
    def following(self) -> Iterator[None]:
        """Within it what is kept is counted."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
            yield

    def _pack(self, tensor: Tensor) -> _Kept:
        keys = [storage_of(plain) for plain in _plain(tensor)]
        counted = [(key, size) for key, size in keys if key not in self._left_out and size > 0]
        for key, size in counted:
            if key not in self._holders:
                self._now += size
            self._holders[key] = self._holders.get(key, 0) + 1
        self.peak = max(self.peak, self._now)
        return _Kept(tensor, self, counted)

    def let_go(self, counted: list[tuple[tuple[str, int], int]]) -> None:
        """The backward pass needs these no more."""
        for key, size in counted:
            self._holders[key] -= 1
            if self._holders[key] == 0:
                del self._holders[key]
                self._now -= size


class _Kept:
    """One tensor in the keeping of the graph; it ends with its last holder."""

    __slots__ = ("_counted", "_saved", "tensor")

    def __init__(self, tensor: Tensor, saved: Saved, counted: list[tuple[tuple[str, int], int]]) -> None:
        self.tensor, self._saved, self._counted = tensor, saved, counted

    def __del__(self) -> None:
        self._saved.let_go(self._counted)


def _unpack(kept: _Kept) -> Tensor:
    return kept.tensor

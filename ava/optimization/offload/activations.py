"""Activations wait for the backward pass in host memory.

    offloaded = OffloadedActivations(device, model.parameters())
    with offloaded:
        loss = criterion(model(inputs), targets)
    loss.backward()

What autograd saves is copied to the host by a side stream while the forward pass goes on, and the accelerator's memory
is given back. In the backward pass the first use of a value fetches it, and the one that was saved before it, which is
likely to be wanted next.

A storage is copied once, however many views of it are saved. It is known by identity and by autograd's count of
changes, so that what was changed in place in between is saved again.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, MutableMapping
from types import TracebackType

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.weak import WeakIdKeyDictionary

from ava.optimization.offload.lanes import Lanes

SMALLEST = 1 << 16
"""Smaller storages stay: they free less than a copy costs. In bytes."""


class OffloadedActivations:
    """A context whose forward passes leave large saved tensors in host memory; it can be entered again and again.

    Gradients are the same to the bit. A saved tensor must not be changed in place before the backward pass, which
    autograd refuses only where it keeps tensors itself: the copy may still be under way.

    Args:
        device: whose tensors are moved.
        kept: tensors that stay where they are, with all their views: the parameters. Leaves that require a gradient
            are known by themselves.
        host: where the others go; page-locked memory where `device` is a GPU.
        smallest: bytes of a storage from which on it is moved.

    Attributes:
        moved: bytes that went to the host so far.
    """

    def __init__(
        self, device: torch.device | str, kept: Iterable[Tensor] = (), *, host: torch.device | str = "cpu",
        smallest: int = SMALLEST,
    ) -> None:  # fmt: skip
        self.device, self.smallest, self.moved = torch.device(device), smallest, 0
        self._kept, self._lanes = list(kept), Lanes(self.device, torch.device(host))
        self._hooks: list[saved_tensors_hooks] = []

    def __enter__(self) -> OffloadedActivations:
        # Addresses are read anew: parameters may have been given other memory since.
        kept = {tensor.untyped_storage().data_ptr() for tensor in self._kept if _is_plain(tensor)}
        hooks = saved_tensors_hooks(_Pass(self, self._lanes, kept).pack, _unpack)
        hooks.__enter__()
        self._hooks.append(hooks)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.pop().__exit__(kind, error, trace)


class _Saved:
    """A saved tensor: a view of a storage in host memory."""

    def __init__(self, storage: _Storage, tensor: Tensor) -> None:
        self.storage, self.dtype, self.place = storage, tensor.dtype, tensor.storage_offset()
        self.shape, self.stride = tensor.shape, tensor.stride()

    def back(self) -> Tensor:
        storage = self.storage.back()
        empty = torch.empty(0, dtype=self.dtype, device=storage.device)
        return empty.set_(storage, self.place, self.shape, self.stride)


def _unpack(saved: Tensor | _Saved) -> Tensor:
    return saved if isinstance(saved, Tensor) else saved.back()


class _Pass:
    """One forward pass: what it saved, by storage."""

    def __init__(self, owner: OffloadedActivations, lanes: Lanes, kept: set[int]) -> None:
        self.owner, self.lanes, self.kept = owner, lanes, kept
        # Keys are weak: a storage is free once the forward pass is through with it.
        self.known: MutableMapping[torch.UntypedStorage, tuple[int, _Storage]] = WeakIdKeyDictionary()
        self.last: weakref.ref[_Storage] | None = None

    def pack(self, tensor: Tensor) -> Tensor | _Saved:
        if not self._is_moved(tensor):
            return tensor.detach()  # a node's own output would keep the node alive
        storage = tensor.untyped_storage()
        if storage not in self.known or self.known[storage][0] != tensor._version:
            saved = _Storage(storage, self.lanes, self.last)
            self.last, self.known[storage] = weakref.ref(saved), (tensor._version, saved)
            self.owner.moved += storage.nbytes()
        return _Saved(self.known[storage][1], tensor)

    def _is_moved(self, tensor: Tensor) -> bool:
        base = tensor if tensor._base is None else tensor._base
        return (
            _is_plain(tensor)
            and tensor.device.type == self.owner.device.type
            and not (base.is_leaf and base.requires_grad)
            and tensor.untyped_storage().nbytes() >= self.owner.smallest
            and tensor.untyped_storage().data_ptr() not in self.kept
        )


class _Storage:
    """One storage in host memory.

    Args:
        storage: the accelerator's, which is not held.
        lanes: where copies run.
        before: the one that was saved before.
    """

    def __init__(self, storage: torch.UntypedStorage, lanes: Lanes, before: weakref.ref[_Storage] | None) -> None:
        self.lanes, self.before, self.device = lanes, before, storage.device
        self.host = lanes.out(storage)
        self.there: weakref.ref[torch.UntypedStorage] | None = None
        self.fetched: torch.UntypedStorage | None = None

    def back(self) -> torch.UntypedStorage:
        """On the accelerator again, once for all who want it at the same time."""
        storage = None if self.there is None else self.there()
        if storage is None:
            self.fetch()
            storage, self.fetched = self.fetched, None
            assert storage is not None
            self.lanes.wait(storage)
            self.there = weakref.ref(storage)
        before = None if self.before is None else self.before()
        if before is not None and before.there is None:
            before.fetch()
        return storage

    def fetch(self) -> None:
        """Begin to copy back, unless it was begun."""
        if self.fetched is None:
            self.fetched = self.lanes.back(self.host, self.device)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is a window on memory and nothing more."""
    is_ours = type(tensor) in (Tensor, torch.nn.Parameter)
    return is_ours and tensor.layout is torch.strided and not tensor.is_conj() and not tensor.is_neg()

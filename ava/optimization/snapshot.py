"""A training as it stands, kept in memory, to go back to bit for bit.

    snapshot = Snapshot(model, optimizer, scaler)
    try_something()
    snapshot.restore()

Values are copied back in place, into the very tensors they were taken from: what knows these by identity or by address
(captured steps, kernels' tables, gradient buckets, sharded tensors) goes on working. An optimizer's
`load_state_dict` is not used: it casts state to the parameters' type.

A snapshot can be taken again and again into the same memory:

    snapshot = Snapshot(model, optimizer, gradients=False)
    for batch in batches:
        step(batch)
        snapshot.retake()
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.optimization.snapshot_structure import Structure, Values
from ava.optimization.snapshot_values import Back, Generator, Stateful

__all__ = ["Generator", "Snapshot", "Stateful"]


class Snapshot:
    """What a model, its optimizer and other parts hold now; `restore()` may be called any number of times.

    Kept are parameters, gradients (None stays None), buffers, what `get_extra_state` returns, and of each module
    whether it is training; of optimizers, averages and gradient scalers all their attributes: state, groups, counters.
    The global random numbers are not part of it (`ava.rng`).

    Args:
        parts: models, optimizers, gradient scalers, random generators, and anything with `state_dict` and
            `load_state_dict`. None is passed over.
        device: keep the copies of tensors there; None leaves each on its own device.
        gradients: False leaves gradients out: they are not touched by `restore`.
        pinned: with `device` the CPU, an accelerator's tensors are copied into pinned memory without waiting for them.

    Attributes:
        nbytes: what the copies of tensors take.

    Raises:
        InputError: something has no state to keep, or a lazy module has no parameters yet.
    """

    def __init__(
        self, *parts: Any, device: torch.device | None = None, gradients: bool = True, pinned: bool = False
    ) -> None:
        self._subject = _Subject([part for part in parts if part is not None], gradients)
        self._device, self._pinned = device, pinned
        self._fill(*self._subject.now())

    @property
    def nbytes(self) -> int:
        """What the copies of tensors take, in bytes."""
        return self._copies.nbytes

    @torch.no_grad()
    def restore(self) -> None:
        """Make everything again what it was."""
        self._copies.put_back()
        for back in self._backs:
            back()
        self._structure.put_back(self._numbers)

    def copy_of(self, tensor: Tensor) -> Tensor | None:
        """The contents that one of the tensors had, where they are kept; None if it was not there.

        Args:
            tensor: a parameter, a buffer or a state tensor; of a sharded one, this rank's part is kept.
        """
        index = self._structure.index(tensor)
        return None if index is None else self._copies.copies[index]

    def another(self, device: torch.device | None = None) -> Snapshot:
        """A snapshot of the same parts as they are now; they are not walked through again if only contents changed.

        Args:
            device: as of the class; None takes this one's.
        """
        other = Snapshot.__new__(Snapshot)
        other._subject, other._pinned = self._subject, self._pinned
        other._device = self._device if device is None else device
        other._fill(*self._subject.now())
        return other

    def retake(self) -> None:
        """Keep what the parts hold now in place of what was kept, in the same memory unless tensors came or went."""
        structure, numbers = self._subject.now()
        if structure is self._structure:
            self._keep(numbers)
        else:
            self._fill(structure, numbers)

    def _fill(self, structure: Structure, numbers: Values) -> None:
        self._structure = structure
        self._copies = _Copies(structure.tensors, self._device, self._pinned)
        self._keep(numbers)

    @torch.no_grad()
    def _keep(self, numbers: Values) -> None:
        self._numbers = numbers
        self._copies.take()
        self._backs: list[Back] = [take() for take in self._structure.takes]


class _Subject:
    """Parts of which snapshots are taken, and their structure as far as it is known."""

    def __init__(self, parts: list[Any], gradients: bool) -> None:
        self._parts, self._gradients = parts, gradients
        self._structure: Structure | None = None

    def now(self) -> tuple[Structure, Values]:
        """The structure, the same object as long as nothing but contents and numbers changes, and the numbers."""
        if self._structure is not None and (numbers := self._structure.numbers()) is not None:
            return self._structure, numbers
        self._structure = Structure(self._parts, self._gradients)
        return self._structure, self._structure.first_numbers()


class _Copies:
    """Memory for the contents of tensors, in groups that one call copies."""

    def __init__(self, tensors: list[Tensor], device: torch.device | None, pinned: bool) -> None:
        self._non_blocking = pinned and device is not None and device.type == "cpu"
        self.copies = [self._like(tensor, device) for tensor in tensors]
        self.nbytes = sum(copy.nbytes for copy in self.copies)
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, Tensor]]] = {}
        for tensor, copy in zip(tensors, self.copies, strict=True):
            groups.setdefault((tensor.device, tensor.dtype), []).append((tensor, copy))
        self._groups = [tuple(map(list, zip(*pairs, strict=True))) for pairs in groups.values()]

    def take(self) -> None:
        """Copy the contents."""
        for tensors, copies in self._groups:
            torch._foreach_copy_(copies, tensors, self._non_blocking)

    def put_back(self) -> None:
        """Copy them back. What was copied without waiting is there by then: the same stream does both."""
        for tensors, copies in self._groups:
            torch._foreach_copy_(tensors, copies, self._non_blocking)

    def _like(self, tensor: Tensor, device: torch.device | None) -> Tensor:
        pin = self._non_blocking and tensor.device.type == "cuda"
        return torch.empty_like(tensor, device=device, pin_memory=pin)

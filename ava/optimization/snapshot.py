"""A training as it stands, kept in memory, to go back to bit for bit.

    snapshot = Snapshot(model, optimizer, scaler)
    try_something()
    snapshot.restore()

Values are copied back in place, into the very tensors they were taken from: what knows these by identity or by address
(captured steps, kernels' tables, gradient buckets, sharded tensors) goes on working. An optimizer's
`load_state_dict` is not used: it casts state to the parameters' type.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ava.errors import InputError
from ava.optimization.optimizers.wrappers.fused_backward import FusedBackward

Generator: TypeAlias = torch.Generator | random.Random | np.random.Generator
Back = Callable[[], Any]
"""Gives back the very object that was kept, with the contents it had."""


@runtime_checkable
class Stateful(Protocol):
    """What says itself what it has to keep."""

    def state_dict(self) -> Any:
        """All that must not change."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take it back."""


class Snapshot:
    """What a model, its optimizer and other parts hold now; `restore()` may be called any number of times.

    Kept are parameters, gradients (None stays None), buffers, what `get_extra_state` returns, and of each module
    whether it is training; of optimizers and gradient scalers all their attributes: state, groups, counters. The global
    random numbers are not part of it (`ava.rng`).

    Args:
        parts: models, optimizers, gradient scalers, random generators, and anything with `state_dict` and
            `load_state_dict`. None is passed over.
        device: keep the copies of tensors there; None leaves each on its own device.

    Attributes:
        nbytes: what the copies of tensors take.

    Raises:
        InputError: something has no state to keep, or a lazy module has no parameters yet.
    """

    def __init__(self, *parts: Any, device: torch.device | None = None) -> None:
        keeper = _Keeper(device)
        self._backs = [back for one in parts if one is not None for back in keeper.parts(one)]
        self.nbytes = keeper.nbytes

    @torch.no_grad()
    def restore(self) -> None:
        """Make everything again what it was."""
        for back in self._backs:
            back()


class _Keeper:
    """Makes the ways back; what is reachable twice is copied once."""

    def __init__(self, device: torch.device | None) -> None:
        self.device, self.nbytes = device, 0
        self._known: dict[int, Back] = {}

    def parts(self, one: Any) -> Iterator[Back]:
        """The ways back of one thing that trains or is trained."""
        if isinstance(one, nn.Module):
            for module in one.modules():
                yield from self._module(module)
        elif _is_open(one) or isinstance(one, Generator):
            yield self.keep(one)
        elif isinstance(one, Stateful):
            yield _stateful(one)
        else:
            raise InputError(
                f"a {type(one).__name__} cannot be kept: it has no state_dict and load_state_dict.",
                hint="Give it both, or leave it out.",
            )

    def _module(self, module: nn.Module) -> Iterator[Back]:
        yield self.keep(module._parameters)
        yield self.keep(module._buffers)
        is_training = module.training
        yield lambda: setattr(module, "training", is_training)
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            extra = copy.deepcopy(module.get_extra_state())
            yield lambda: module.set_extra_state(copy.deepcopy(extra))

    def keep(self, value: Any) -> Back:
        """The way back of a value; what cannot change, and what is none of ours, is its own."""
        if id(value) not in self._known:
            self._known[id(value)] = lambda: value  # for what contains itself
            self._known[id(value)] = self._new(value)
        return self._known[id(value)]

    def _new(self, value: Any) -> Back:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, MutableMapping):
            return self._mapping(value)
        if isinstance(value, list):
            return _list(value, [self.keep(item) for item in value])
        if isinstance(value, tuple):
            return _tuple(value, [self.keep(item) for item in value])
        if isinstance(value, np.ndarray):
            return _array(value)
        if isinstance(value, Generator):
            return _generator(value)
        if _is_open(value):
            attributes = self.keep(vars(value))
            return lambda: (attributes(), value)[1]
        return lambda: value

    def _tensor(self, tensor: Tensor) -> Back:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise InputError("a lazy module has no parameters yet.", hint="Run one batch through the model first.")
        memory = _memory(tensor.detach())
        value = memory.clone() if self.device is None else memory.to(self.device, copy=True)
        self.nbytes += value.nbytes
        gradient = self.keep(tensor.grad) if tensor.is_leaf else None

        def back() -> Tensor:
            memory.copy_(value)
            if gradient is not None:
                tensor.grad = gradient()
            return tensor

        return back

    def _mapping(self, mapping: MutableMapping[Any, Any]) -> Back:
        items = [(key, self.keep(value)) for key, value in mapping.items()]
        names = [_name(key) for key, _ in items]

        def back() -> MutableMapping[Any, Any]:
            kept = [(key, way()) for key, way in items]
            if [_name(key) for key in mapping] != names:
                mapping.clear()
            for key, value in kept:
                # Only what differs is set: state that notes its changes would have caches made anew.
                if key not in mapping or mapping[key] is not value:
                    mapping[key] = value
            return mapping

        return back


def _is_open(value: Any) -> bool:
    """Whether all attributes are kept: `state_dict` leaves out counters, and steps that an error cut in two."""
    return isinstance(value, torch.optim.Optimizer | torch.amp.GradScaler | FusedBackward)


def _name(key: Any) -> Any:
    """What a key is compared by: tensors have no equality that is one answer."""
    return id(key) if isinstance(key, Tensor) else key


def _memory(tensor: Tensor) -> Tensor:
    """The tensor without its expanded dimensions, whose elements are one and cannot be written as many."""
    if tensor.layout is torch.strided:
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if size > 1 and stride == 0:
                tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _list(value: list[Any], ways: list[Back]) -> Back:
    def back() -> list[Any]:
        value[:] = [way() for way in ways]
        return value

    return back


def _tuple(value: tuple[Any, ...], ways: list[Back]) -> Back:
    def back() -> tuple[Any, ...]:
        for way in ways:
            way()
        return value

    return back


def _array(value: np.ndarray[Any, Any]) -> Back:
    held = value.copy()

    def back() -> np.ndarray[Any, Any]:
        value[...] = held
        return value

    return back


def _generator(value: Generator) -> Back:
    state: Any = (
        value.get_state() if isinstance(value, torch.Generator)
        else value.getstate() if isinstance(value, random.Random)
        else value.bit_generator.state
    )  # fmt: skip

    def back() -> Generator:
        if isinstance(value, torch.Generator):
            value.set_state(state)
        elif isinstance(value, random.Random):
            value.setstate(state)
        else:
            value.bit_generator.state = state
        return value

    return back


def _stateful(one: Stateful) -> Back:
    # Copied both times: a state dict may hold the live tensors, and who loads one may keep it.
    state = copy.deepcopy(one.state_dict())
    return lambda: one.load_state_dict(copy.deepcopy(state))

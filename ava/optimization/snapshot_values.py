"""What is kept as a value, because it has no tensors that could be copied in place: generators, arrays, state dicts."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

Generator: TypeAlias = torch.Generator | random.Random | np.random.Generator
Back = Callable[[], Any]
"""Makes one thing again what it was."""
Take = Callable[[], Back]
"""Keeps what one thing is now."""


@runtime_checkable
class Stateful(Protocol):
    """What says itself what it has to keep."""

    def state_dict(self) -> Any:
        """All that must not change."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take it back."""


@runtime_checkable
class Holdable(Protocol):
    """What can be kept more cheaply than by its state dict, or without waiting for a device."""

    def hold(self) -> Back:
        """The way back to what it is now; may be called any number of times."""


def stateful(one: Stateful) -> Back:
    """The way back by a state dict."""
    # Copied both times: a state dict may hold the live tensors, and who loads one may keep it.
    state = copied(one.state_dict())
    return lambda: one.load_state_dict(copied(state))


def extra_state(module: nn.Module) -> Back:
    """The way back of what a module says of itself."""
    extra = copy.deepcopy(module.get_extra_state())
    return lambda: module.set_extra_state(copy.deepcopy(extra))


def array(value: np.ndarray[Any, Any]) -> Back:
    """The way back of an array, in place."""
    held = value.copy()

    def back() -> None:
        value[...] = held

    return back


def generator(value: Generator) -> Back:
    """The way back of a generator of random numbers."""
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        words = value.getstate()
        return lambda: value.setstate(words)
    bits = value.bit_generator.state
    return lambda: setattr(value.bit_generator, "state", bits)


def copied(value: Any) -> Any:
    """A copy of a tree that shares no tensor and no container with it; several times faster than `copy.deepcopy`."""
    kind = type(value)
    if kind in (int, float, bool, str, type(None)):
        return value
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    if kind is tuple:
        return tuple([copied(item) for item in value])
    if kind is Tensor and not value.requires_grad:
        return value.clone()
    return copy.deepcopy(value)

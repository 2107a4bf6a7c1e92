"""What a training is made of: its tensors, and the containers that hold them, walked through once.

A walk over modules, groups and state costs more than copying a small model. From one step to the next hardly anything
changes but the contents of tensors and some numbers, and whether that is so can be asked of flat lists: the same
keys, and under each the same object, or a number where a number was.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, MutableMapping, Sequence
from itertools import chain, compress
from operator import attrgetter, is_, is_not
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ava.errors import InputError
from ava.optimization.optimizers.watched import ParameterState, States
from ava.optimization.optimizers.wrappers.ema import EMA
from ava.optimization.optimizers.wrappers.fused_backward import FusedBackward
from ava.optimization.snapshot_values import (
    Generator,
    Holdable,
    Stateful,
    Take,
    array,
    extra_state,
    generator,
    stateful,
)

Container = MutableMapping[Any, Any] | list[Any]
Values = list[Any]

_GRADIENT, _TRAINING, _LOCAL = attrgetter("grad"), attrgetter("training"), attrgetter("_local_tensor")
_PLAIN = frozenset({int, float, bool, complex, str, bytes, type(None), torch.dtype, torch.device})


class Structure:
    """All that parts hold, by identity; what it finds is listed once, however often it is reachable.

    Args:
        parts: models, optimizers, gradient scalers, averages, random generators, and what has `hold`, or `state_dict`
            and `load_state_dict`.
        gradients: gradients are part of it.

    Attributes:
        tensors: where the contents lie: the local part of sharded tensors, without expanded dimensions.
        sources: whose contents these are, in the same order.
        takes: what keeps everything else.

    Raises:
        InputError: something has no state to keep, or a lazy module has no parameters yet.
    """

    def __init__(self, parts: Iterable[Any], gradients: bool = True) -> None:
        self.tensors: list[Tensor] = []
        self.takes: list[Take] = []
        self._gradients = gradients
        self._known: dict[int, Any] = {}  # holds them, too: the number of what is gone may be another's
        self._modules: list[nn.Module] = []
        self.sources: list[Tensor] = []
        self._leaves: list[Tensor] = []
        self._open = _Containers()
        self._closed = _Containers()
        self._states: list[States] = []
        for part in parts:
            self._part(part)
        self._open.look()
        self._closed.look()
        self._epochs = [states.epoch.count for states in self._states]
        self._grads = list(map(_GRADIENT, self._leaves))
        self._places = _places(self.sources)

    def numbers(self) -> Values | None:
        """What containers and modules hold now besides tensors' contents; None where more than numbers has changed."""
        if [states.epoch.count for states in self._states] != self._epochs:
            return None
        values = self._open.numbers()
        if values is None or (self._leaves and not all(map(is_, map(_GRADIENT, self._leaves), self._grads))):
            return None
        if self._places is None or _places(self.sources) != self._places:
            return None
        return [values, list(map(_TRAINING, self._modules))]

    def first_numbers(self) -> Values:
        """What `numbers` would say at the walk."""
        return [self._open.values, list(map(_TRAINING, self._modules))]

    def index(self, tensor: Tensor) -> int | None:
        """The place of a tensor's contents in `tensors`; None if it is not part of this."""
        return next((index for index, source in enumerate(self.sources) if source is tensor), None)

    def put_back(self, numbers: Values) -> None:
        """Make the containers hold again what they held when `numbers` were taken."""
        values, training = numbers
        self._open.put_back(values)
        if [states.epoch.count for states in self._states] != self._epochs:
            self._closed.put_back(self._closed.values)
            self._epochs = [states.epoch.count for states in self._states]
        for module, is_training in zip(self._modules, training, strict=True):
            module.training = is_training
        for leaf, gradient in zip(self._leaves, self._grads, strict=True):
            leaf.grad = gradient

    def _part(self, part: Any) -> None:
        if isinstance(part, nn.Module):
            for module in part.modules():
                self._module(module)
        elif isinstance(part, Holdable):
            self.takes.append(part.hold)
        elif _is_open(part) or isinstance(part, Generator):
            self._visit(part)
        elif isinstance(part, Stateful):
            self.takes.append(functools.partial(stateful, part))
        else:
            raise InputError(
                f"a {type(part).__name__} cannot be kept: it has no state_dict and load_state_dict.",
                hint="Give it both, or leave it out.",
            )

    def _module(self, module: nn.Module) -> None:
        self._modules.append(module)
        self._visit(module._parameters)
        self._visit(module._buffers)
        self._known.setdefault(id(module), module)
        self._visit(module._modules)
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            self.takes.append(functools.partial(extra_state, module))

    def _visit(self, value: Any) -> None:
        """Note a value and what it holds; what cannot change, and what is none of ours, is its own."""
        if type(value) in _PLAIN or id(value) in self._known:
            return
        self._known[id(value)] = value
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, States):
            self._watch(value)
        elif isinstance(value, MutableMapping | list):
            self._container(value, self._open)
        elif isinstance(value, tuple):
            for item in value:
                self._visit(item)
        elif isinstance(value, np.ndarray):
            self.takes.append(functools.partial(array, value))
        elif isinstance(value, Generator):
            self.takes.append(functools.partial(generator, value))
        elif _is_open(value):
            self._container(vars(value), self._open)

    def _container(self, value: Container, among: _Containers) -> None:
        among.add(value)
        for item in value.values() if isinstance(value, MutableMapping) else value:
            self._visit(item)

    def _watch(self, states: States) -> None:
        """State that counts its changes need not be looked at while the count stays."""
        if not all(type(own) is ParameterState for own in states.values()):
            self._container(states, self._open)
            return
        self._states.append(states)
        self._closed.add(states)
        for own in states.values():
            self._known.setdefault(id(own), own)
            self._container(own, self._closed)

    def _tensor(self, tensor: Tensor) -> None:
        if isinstance(tensor, UninitializedParameter | UninitializedBuffer):
            raise InputError("a lazy module has no parameters yet.", hint="Run one batch through the model first.")
        self.sources.append(tensor)
        self.tensors.append(_memory(_local(tensor.detach())))
        if self._gradients and tensor.is_leaf:
            self._leaves.append(tensor)
            self._visit(tensor.grad)


class _Containers:
    """Mappings and lists, and what they held when they were looked at."""

    def __init__(self) -> None:
        self._mappings: list[MutableMapping[Any, Any]] = []
        self._lists: list[list[Any]] = []
        self.values: Values = []

    def add(self, container: Container) -> None:
        if isinstance(container, list):
            self._lists.append(container)
        else:
            self._mappings.append(container)

    def look(self) -> None:
        """Note what they hold."""
        self._lengths, self._keys, self.values = self._lengths_now(), self._keys_now(), self._values_now()

    def numbers(self) -> Values | None:
        """What they hold now, if it is the same save for numbers; else None."""
        if self._lengths_now() != self._lengths or not all(map(is_, self._keys_now(), self._keys)):
            return None
        now, before = self._values_now(), self.values
        scalars: dict[int, _Scalar] = {}
        for place in compress(range(len(now)), map(is_not, now, before)):
            new, old = now[place], before[place]
            if _is_scalar(new) and _is_scalar(old):
                now[place] = scalars.setdefault(id(new), _Scalar(new))
            elif not (_is_plain(new) and _is_plain(old)):
                return None
        return now

    def put_back(self, values: Values) -> None:
        """Let them hold these values, in the same order as they were looked at."""
        scalars = {id(value): value.tensor.clone() for value in values if type(value) is _Scalar}
        keys, left = iter(self._keys), (scalars.get(id(value), value) for value in values)
        lengths = iter(self._lengths)
        for mapping in self._mappings:
            count = next(lengths)
            _fill(mapping, [next(keys) for _ in range(count)], [next(left) for _ in range(count)])
        for container in self._lists:
            container[:] = [next(left) for _ in range(next(lengths))]

    def _lengths_now(self) -> list[int]:
        return [*map(len, self._mappings), *map(len, self._lists)]

    def _keys_now(self) -> list[Any]:
        return list(chain.from_iterable(self._mappings))

    def _values_now(self) -> Values:
        return [*chain.from_iterable([m.values() for m in self._mappings]), *chain.from_iterable(self._lists)]


class _Scalar:
    """The value of a 0-dim tensor that steps replace rather than change: what all parameters share."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.clone()


def _is_scalar(value: Any) -> bool:
    return type(value) is Tensor and value.ndim == 0 and not value.requires_grad


def _fill(mapping: MutableMapping[Any, Any], keys: Sequence[Any], values: Sequence[Any]) -> None:
    if [_name(key) for key in mapping] != [_name(key) for key in keys]:
        mapping.clear()
    for key, value in zip(keys, values, strict=True):
        # Only what differs is set: state that notes its changes would have caches made anew.
        if key not in mapping or mapping[key] is not value:
            mapping[key] = value


def _is_open(value: Any) -> bool:
    """Whether all attributes are kept: `state_dict` leaves out counters, and steps that an error cut in two."""
    return isinstance(value, torch.optim.Optimizer | torch.amp.GradScaler | FusedBackward | EMA)


def _is_plain(value: Any) -> bool:
    """Whether a value cannot change, nor anything in it."""
    return type(value) in _PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def _name(key: Any) -> Any:
    """What a key is compared by: tensors have no equality that is one answer."""
    return id(key) if isinstance(key, Tensor) else key


def _local(tensor: Tensor) -> Tensor:
    """Of a sharded tensor (DTensor) the part on this rank."""
    return getattr(tensor, "_local_tensor", tensor)


def _memory(tensor: Tensor) -> Tensor:
    """The tensor without its expanded dimensions, whose elements are one and cannot be written as many."""
    if tensor.layout is torch.strided:
        for dim, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
            if size > 1 and stride == 0:
                tensor = tensor.narrow(dim, 0, 1)
    return tensor


def _places(tensors: list[Tensor]) -> list[int] | None:
    """Where the contents lie, which `tensor.data = ...` moves; None if one cannot say."""
    try:
        return list(map(Tensor.data_ptr, map(_local, tensors)))
    except RuntimeError:  # wrappers of other kinds, and sparse tensors, have no single place
        return None

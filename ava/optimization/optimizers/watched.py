"""The optimizer's state as dicts that note when they change, so that a step need not look at every tensor of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


class Epoch:
    """Counts changes."""

    count = 0


def _noted(name: str, base: type) -> Callable[..., Any]:
    method = getattr(base, name)

    def change(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.epoch.count += 1
        return method(self, *args, **kwargs)

    change.__name__, change.__doc__ = name, method.__doc__
    return change


_CHANGES = ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update")


class ParameterState(dict[str, Tensor]):
    """One parameter's state; a copy is a plain dict."""

    def __init__(self, epoch: Epoch, items: Mapping[str, Tensor] | None = None) -> None:
        super().__init__(items or {})
        self.epoch = epoch

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class States(defaultdict[Tensor, dict[str, Tensor]]):
    """All parameters' states; a copy is a plain defaultdict."""

    def __init__(self, states: Mapping[Tensor, Mapping[str, Tensor]]) -> None:
        self.epoch = Epoch()
        super().__init__(dict, {key: ParameterState(self.epoch, value) for key, value in states.items()})

    def __missing__(self, key: Tensor) -> dict[str, Tensor]:
        self[key] = made = ParameterState(self.epoch)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return defaultdict, (dict, dict(self))


for _name in _CHANGES:
    setattr(ParameterState, _name, _noted(_name, dict))
    setattr(States, _name, _noted(_name, defaultdict))

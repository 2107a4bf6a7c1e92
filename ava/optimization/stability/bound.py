"""Momentum schedules and responses by name, with what they remember."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ava.errors import InputError
from ava.optimization.options import check_all
from ava.registry import Registry


class Bound:
    """A registered function, or an object of a registered class, that is called with what its frame gives.

    Args:
        registry: of momentum schedules, or of responses.
        name: one of the registry's.
        options: the part's own; the others are as its signature says.

    Raises:
        InputError: there is none of that name, or it has no such option, or the value is not allowed.
    """

    def __init__(self, registry: Registry, name: str, options: Mapping[str, Any] | None = None) -> None:
        entry = registry[name]
        kinds = {key: kind for key, (kind, _) in entry.parameters.items()}
        try:
            checked = check_all(f"{registry.sort} {name}", options or {}, kinds)
        except InputError as error:
            if error.key is None:
                raise
            raise error.at(f"{registry.sort}s.{name}.{error.key}", error.value) from None
        self.name, self.call = name, _called(entry.load(), entry.defaults | checked)

    @property
    def memory(self) -> dict[str, Any]:
        """What an object remembers, by name: its own attribute `memory`; empty where it has none."""
        memory: dict[str, Any] = getattr(self.call, "memory", {})
        return memory

    def __call__(self, *frame: Any) -> Any:
        """What it says to this step."""
        return self.call(*frame)


def _called(builder: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    if inspect.isclass(builder):
        made: Any = builder(**options)
        called: Callable[..., Any] = made
        return called
    return functools.partial(builder, **options) if options else builder

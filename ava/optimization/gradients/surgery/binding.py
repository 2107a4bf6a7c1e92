"""A registered surgery method with its options.

bind("cagrad", c=0.4)(Objectives(gram))
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast

from ava import registry
from ava.errors import InputError, nearest
from ava.optimization.options import check_all


def bind(name: str, /, **options: Any) -> Callable[..., Any]:
    """Build a method from its name and its own options.

    Args:
        name: one of `list_surgery()`.
        options: its own; those that all methods share belong to whoever applies it.

    Returns:
        A function of what the method needs: `Objectives -> weights`, or `Rows -> gradients` where `needs(name)` is
        "rows". Of a method that remembers, a new object.

    Raises:
        InputError: no method has the name, or it has no such option, or the value is not allowed.
    """
    entry = registry.surgery[name]
    checked = check_all(name, options, {key: entry.parameters[key][0] for key in entry.own})
    builder = entry.load()
    if inspect.isclass(builder):
        return cast(Callable[..., Any], builder(**checked))
    return functools.partial(builder, **checked)


def bind_within(surgeon: type, name: str, options: dict[str, Any]) -> Callable[..., Any]:
    """Build a method from what was given to a class that has options of its own.

    Raises:
        InputError: as `bind`; neither the class nor the method has an option.
    """
    theirs = [key for key, p in inspect.signature(surgeon).parameters.items() if p.kind is not p.VAR_KEYWORD]
    known = [*theirs, *registry.surgery[name].own]
    for key in options:
        if key not in known:
            problem = f"{surgeon.__name__} with method={name} has no option {key!r}; it has: {', '.join(known)}."
            raise InputError(problem, hint=nearest(key, known))
    return bind(name, **options)


def needs(name: str) -> str:
    """What a method works from: "gram", inner products of gradients; "losses"; or "rows", the gradients themselves.

    Raises:
        InputError: no method has the name.
    """
    return str(registry.surgery[name].tags.get("needs", "gram"))

"""A class for each named optimizer, whose signature is its builder's."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from ava.optimization.catalogue import class_name
from ava.optimization.optimizers import piloted
from ava.optimization.optimizers.batches import Grammar
from ava.optimization.optimizers.composed import ComposedOptimizer
from ava.optimization.optimizers.sentence import ByShape, Words
from ava.registry import optimizer


@functools.cache
def build_class(name: str, builder: Callable[..., Words | ByShape]) -> type[ComposedOptimizer]:
    """The class of a named optimizer: its signature is the builder's, its pickles are found by its name.

    Args:
        name: the registered name.
        builder: the function under `@optimizer`.

    Returns:
        A subclass of ComposedOptimizer, the same one for the same arguments.
    """
    entry = optimizer[name]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    signature = inspect.Signature(
        [
            inspect.Parameter("self", kind),
            inspect.Parameter("params", kind),
            *(inspect.Parameter(k, kind, annotation=a, default=d) for k, (a, d) in entry.parameters.items()),
            inspect.Parameter("engine", inspect.Parameter.KEYWORD_ONLY, default="auto"),
        ]
    )

    def __init__(self: ComposedOptimizer, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        options = {key: bound.arguments[key] for key in entry.parameters}
        ComposedOptimizer.__init__(self, bound.arguments["params"], options, bound.arguments["engine"])

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    title = class_name(entry)
    members = {
        "__init__": __init__, "__doc__": entry.doc, "__module__": "ava.optimization", "__qualname__": title,
        "name": name, "builder": staticmethod(builder), "grammar": Grammar(name, builder), **piloted.members(entry),
    }  # fmt: skip
    return type(title, (ComposedOptimizer,), members)

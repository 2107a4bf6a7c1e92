"""Functions that `torch.compile` leaves alone.

An optimizer's step is one compiled pass over memory already (`engines/native`, `engines/triton`). A user's compiled
training step breaks its graph there, instead of following every rule through its Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """The same function; within a compiled one it runs as it is.

    What `torch.compiler.disable` makes takes 7 us a call, also where nothing is compiled.
    """
    disabled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.compiler.is_compiling():
            return function(*args, **kwargs)
        if not disabled:
            disabled.append(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        return disabled[0](*args, **kwargs)

    return call

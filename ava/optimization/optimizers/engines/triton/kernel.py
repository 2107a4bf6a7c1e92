"""A layout as the text of its kernels, and the text as functions that triton compiles on their first call."""

from __future__ import annotations

import functools
import hashlib
import linecache
import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ava.optimization.optimizers.engines.triton.between import between
from ava.optimization.optimizers.engines.triton.layout import Layout
from ava.optimization.optimizers.engines.triton.walk import walks


def print_kernels(layout: Layout) -> tuple[str, list[list[str]]]:
    """The text of all kernels, and which run before, in and behind each pass.

    Returns:
        Python text, and for each number from 0 to `layout.end` the names of the kernels, in order.
    """
    texts: list[str] = []
    order: list[list[str]] = []
    for number in range(layout.end + 1):
        text = between(layout, number)
        kernels = {f"between_{number}": text} if text else {}
        if number < layout.end:
            kernels |= walks(layout, number)
        texts += kernels.values()
        order.append(list(kernels))
    return "\n".join(texts), order


@functools.cache
def is_installed() -> bool:
    """Whether triton can be imported; asked without importing it."""
    return find_spec("triton") is not None


def is_interpreted() -> bool:
    """Whether triton interprets its kernels on the processor, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def load(source: str) -> dict[str, Callable[..., Any]]:
    """The kernels of a text, by name."""
    from ava.optimization.optimizers.engines.triton import prelude

    # Triton reads the source of a function from where its file's lines are kept; there is no file.
    name = f"<ava kernel {hashlib.sha256(source.encode()).hexdigest()[:16]}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    scope: dict[str, Any] = {key: getattr(prelude, key) for key in prelude.KERNEL_NAMES}
    scope["__name__"] = __name__
    exec(compile(source, name, "exec"), scope)
    return scope

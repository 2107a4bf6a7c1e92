"""What a learning-rate finder is to the measurement: something that prepares a search in a scene."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ava.bench.finder_scene import Scene

Search = Callable[[], float | None]


@dataclass(frozen=True)
class Range:
    """What is tested: `num_steps` rates from `min_lr` to `max_lr`."""

    min_lr: float = 1e-7
    max_lr: float = 10.0
    num_steps: int = 100


Finder = Callable[[Scene, Range], Search]
"""Prepares a search, whose call returns the suggested rate, or None, or raises."""


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Without others' progress bars, prints and warnings."""
    hidden = io.StringIO()
    with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

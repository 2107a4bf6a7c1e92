"""A data loader taken back to where it was: its generators, its own state, its workers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch

from ava.errors import InputError
from ava.optimization.snapshot import Generator, Snapshot, Stateful


class Rewind:
    """Where a loader stands; nothing is consumed to know it.

    Rewound are the random generators that it, its dataset and its samplers hold, what has `state_dict` and
    `load_state_dict`, and workers that stay from epoch to epoch, which start anew. What each `iter(loader)` begins from
    the front needs no more.

    Args:
        loader: an iterable of batches.

    Raises:
        InputError: it cannot be rewound: it is an iterator, or its workers are running.
    """

    def __init__(self, loader: Any) -> None:
        parts = list(_parts(loader))
        for part in parts:
            _refuse_iterator(part)
        self._loader, self._generators = loader, [g for part in parts for g in _generators(part)]
        if getattr(loader, "_iterator", None) is not None and not isinstance(loader, Stateful):
            raise InputError(
                "the loader's persistent workers are running, and hold a position that cannot be kept.",
                key="train_loader", value=type(loader).__name__,
                hint="Search before the first epoch, or with a loader of its own.",
            )  # fmt: skip
        # Generators last: a loader that takes its state back may draw from them.
        self._snapshot = Snapshot(*(part for part in parts if isinstance(part, Stateful)), *self._generators)

    def restore(self) -> None:
        """Take the loader back."""
        if getattr(self._loader, "_iterator", None) is not None:
            self._loader._iterator = None
        self._snapshot.restore()

    def reseed(self, seed: int) -> None:
        """Let the loader's generators draw something else."""
        for generator in self._generators:
            if isinstance(generator, torch.Generator):
                generator.manual_seed(seed)
            elif isinstance(generator, random.Random):
                generator.seed(seed)
            else:
                bits = generator.bit_generator
                bits.state = type(bits)(seed).state


def _parts(loader: Any) -> Iterator[Any]:
    """The loader, and what it takes its batches from."""
    seen: list[Any] = []
    todo = [loader]
    while todo:
        part = todo.pop()
        if part is None or any(part is other for other in seen):
            continue
        seen.append(part)
        yield part
        todo += [getattr(part, name, None) for name in ("dataset", "sampler", "batch_sampler")]


def _generators(part: Any) -> Iterator[Generator]:
    """The random generators among an object's attributes."""
    for value in getattr(part, "__dict__", {}).values():
        if isinstance(value, Generator):
            yield value


def _refuse_iterator(part: Any) -> None:
    if hasattr(part, "__next__") and not isinstance(part, Stateful):
        raise InputError(
            "is an iterator: the batches that the search takes from it would be missing in the training.",
            key="train_loader", value=type(part).__name__,
            hint="Give what it was made from, such as the DataLoader itself, or state_dict and load_state_dict.",
        )  # fmt: skip

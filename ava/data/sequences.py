"""Sequences of T tokens cut from one long stream: what every source of tokens shares.

A stream of M + 1 tokens has M targets: each token but the first, predicted from those before it. An epoch cuts the
targets into ceil(M / T) sequences of T, the last filled up with targets that do not count (-100); each target stands
in exactly one of them. Training turns the stream like a ring by a random amount before cutting, another one in every
epoch, so that a token is not always seen with the same context; nothing is lost or repeated by that. Validation
does not turn, so its M targets are the stream without its first token, in order.

Text is a stream of bytes with a 0 before each document (`byte_stream`). The validation targets of a text are
therefore its documents joined by single 0 bytes, and nothing else: bits per byte is the cross-entropy over exactly
these bytes, and these bytes, in this order, are what a compressor gets beside it (`ava.tasks.baselines`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from ava.data.keyed import uniform
from ava.data.source import IGNORED
from ava.errors import InputError


class Tokens(Protocol):
    """A stream of tokens; a one-dimensional numpy array is one."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray, /) -> Any:
        """The tokens at `indices`, as an integer array of the same shape."""
        ...


@dataclass(frozen=True, eq=False)
class Sequences:
    """A split over a stream.

    Attributes:
        tokens: the stream, M + 1 tokens.
        context: T, the tokens in a sequence.
        seed: keys how far the stream is turned in each epoch; None leaves it as it is.
    """

    tokens: Tokens = field(repr=False)
    context: int
    seed: int | None = None

    def __len__(self) -> int:
        return -(-self.num_targets // self.context)

    @property
    def num_targets(self) -> int:
        """M, the targets that count in one epoch."""
        return len(self.tokens) - 1

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """The batch {"inputs": (B, T), "targets": (B, T)} of the sequences `indices`; targets may be -100."""
        num_targets = self.num_targets
        turned = indices[:, None] * self.context + np.arange(self.context)
        position = (turned + self._turn(epoch, num_targets)) % num_targets
        inputs = self.tokens.take(position).astype(np.int64)
        targets = self.tokens.take(position + 1).astype(np.int64)
        surplus = turned >= num_targets
        inputs[surplus], targets[surplus] = 0, IGNORED
        return {"inputs": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}

    def _turn(self, epoch: int, num_targets: int) -> int:
        if self.seed is None:
            return 0
        return int(float(uniform(self.seed, epoch, np.zeros(1, dtype=np.int64), 1)[0, 0]) * num_targets)


def byte_stream(documents: Iterable[bytes]) -> np.ndarray:
    """The documents as one stream of bytes, a 0 before each: (M + 1,) uint8, where M bytes are targets."""
    return np.frombuffer(b"\0" + b"\0".join(documents), dtype=np.uint8)


def splits(train: Tokens, valid: Tokens, context: int, seed: int) -> tuple[Sequences, Sequences]:
    """The two splits over two streams.

    Raises:
        InputError: training has fewer tokens than one sequence needs, or validation has no target.
    """
    if len(train) < context + 1:
        raise InputError(
            f"the training split has {max(len(train) - 1, 0):,} tokens, too few for one sequence of context={context}.",
            hint="Give more data or a smaller data.context.",
        )
    if len(valid) < 2:
        raise InputError("the validation split is empty.", hint="Give more data or a larger data.valid_fraction.")
    return Sequences(train, context, seed), Sequences(valid, context)

"""What a data source gives: two splits and the shapes of what they hold.

A source is one function under `@data`. It gets the run's seed and the options of its config, and returns `Data`:

    @data(kind="images")
    def digits(seed: int, /, augment: bool = True) -> Data: ...

A split is a pure function from sample indices to a batch. What looks random in it (augmentation, where a text is
cut) is drawn from (seed, epoch, index) by `ava.data.keyed`, never from a global generator: so a batch is the same
whichever rank or worker makes it, and a resumed run sees what the uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch

IGNORED = -100
"""The target that counts for nothing: what `torch.nn.functional.cross_entropy` ignores by default."""


@dataclass(frozen=True)
class ImageSpec:
    """The shape of labelled images: batches {"inputs": (B, C, H, W) float32, "targets": (B,) int64}.

    Attributes:
        channels: C.
        height: H, in pixels.
        width: W, in pixels.
        num_classes: targets are 0 <= target < num_classes.
        heads: where a task wants several outputs of one model: name -> size. The model then returns
            {name: (B, size)} in the place of (B, num_classes) logits.
    """

    channels: int
    height: int
    width: int
    num_classes: int
    heads: Mapping[str, int] | None = None


@dataclass(frozen=True)
class TokenSpec:
    """The shape of token sequences: batches {"inputs": (B, T) int64, "targets": (B, T) int64}.

    Attributes:
        vocab_size: tokens are 0 <= token < vocab_size.
        context: T, the tokens in a sequence.
        unit: "byte" where each token is one byte of text, so that a loss can be told in bits per byte.
    """

    vocab_size: int
    context: int
    unit: Literal["byte", "token"] = "token"


class Split(Protocol):
    """The samples of one part of the data."""

    def __len__(self) -> int:
        """The number of samples: images, or sequences of T tokens."""
        ...

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """One batch, on the CPU: a pure function of (seed, epoch, indices).

        Args:
            indices: (B,) int64, 0 <= index < len(self), in any order.
            epoch: counts the passes over the data, from 0.
        """
        ...


@runtime_checkable
class Augmented(Protocol):
    """A split that can also give its samples as they are: what simple baselines are fitted to."""

    def plain(self) -> Split:
        """The same samples without random augmentation."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A split that knows its labels without fetching a sample."""

    @property
    def labels(self) -> torch.Tensor:
        """(N,) int64, the class of each sample."""
        ...


@dataclass(frozen=True)
class Data:
    """What a source returns.

    Attributes:
        train: what is learned from.
        valid: what is only measured; never augmented.
        spec: the shapes that a model is built for: ImageSpec, TokenSpec, or a plugin's own.
        description: one line for people: what it is, how much, which version.
    """

    train: Split
    valid: Split
    spec: ImageSpec | TokenSpec | Any
    description: str

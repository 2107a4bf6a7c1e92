"""All that a split holds, read through its own `fetch`: what a model is measured on is what a baseline gets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ava.data.source import IGNORED, Augmented, Labelled, Split

_BATCH = 256


def plain(split: Split) -> Split:
    """The split without augmentation, if it can give that."""
    return split.plain() if isinstance(split, Augmented) else split


def spread(total: int, limit: int) -> np.ndarray:
    """At most `limit` of `total` indices, evenly spread: (min(total, limit),) int64, increasing."""
    if total <= limit:
        return np.arange(total)
    return np.arange(limit) * total // limit


def labels(split: Split, limit: int) -> np.ndarray:
    """The classes of all images, or of `limit` of them if each has to be fetched for it: (N,) int64."""
    return split.labels.numpy() if isinstance(split, Labelled) else gather(split, spread(len(split), limit))[1]


def gather(
    split: Split, indices: np.ndarray, transform: Callable[[torch.Tensor], torch.Tensor] = lambda inputs: inputs
) -> tuple[np.ndarray, np.ndarray]:
    """The inputs (N, ...), each batch put through `transform`, and the targets (N, ...), as epoch 0 has them."""
    inputs, targets = [], []
    for start in range(0, len(indices), _BATCH):
        batch = split.fetch(indices[start : start + _BATCH], 0)
        inputs.append(transform(batch["inputs"]).numpy())
        targets.append(batch["targets"].numpy())
    return np.concatenate(inputs), np.concatenate(targets)


def counted_targets(split: Split, limit: int) -> tuple[np.ndarray, bool]:
    """The targets that count, in order, from at most `limit` of the split's first tokens.

    Returns:
        (N,) int64, and whether these are all that the split has.
    """
    found: list[np.ndarray] = []
    size = 0
    for start in range(0, len(split), _BATCH):
        if size >= limit:
            return np.concatenate(found)[:limit], False
        targets = np.asarray(split.fetch(np.arange(start, min(start + _BATCH, len(split))), 0)["targets"])
        found.append(targets[targets != IGNORED])
        size += len(found[-1])
    tokens = np.concatenate(found)
    return tokens[:limit], len(tokens) <= limit

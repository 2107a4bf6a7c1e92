"""The loss of the best constant answer: what a model reaches that has learnt the frequencies of classes and no more."""

from __future__ import annotations

import numpy as np
import torch

from ava.data.source import IGNORED, Split
from ava.tasks.baselines.gather import plain, spread

_SAMPLES = 2048
"""Of the training split, evenly spread."""
_BATCH = 256


def constant_loss(split: Split) -> float | None:
    """The entropy of the targets, in nats: `-sum p log p` over the classes or tokens of a part of the split.

    Args:
        split: training samples.

    Returns:
        None where the targets are not classes.
    """
    indices, clean = spread(len(split), _SAMPLES), plain(split)
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, len(indices), _BATCH):
        targets = clean.fetch(indices[start : start + _BATCH], 0).get("targets")
        if targets is None or targets.dtype not in (torch.int64, torch.int32, torch.int16, torch.uint8):
            return None
        classes = targets[targets != IGNORED].flatten().numpy()
        if len(classes) and classes.min() < 0:
            return None
        found = np.bincount(classes)
        size = max(len(found), len(counts))
        counts = np.pad(counts, (0, size - len(counts))) + np.pad(found, (0, size - len(found)))
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log(shares)).sum())

"""The frequency of each token in training, whatever came before."""

from __future__ import annotations

import numpy as np

from ava.data.source import Data
from ava.tasks.baselines.gather import counted_targets
from ava.tasks.task import Baseline

_LIMIT = 1 << 24
"""Tokens counted at most in training and in validation; beyond some millions the figure no longer moves."""


def unigram(data: Data, vocab_size: int, metric: str) -> Baseline:
    """The bits per target of validation under training's token frequencies, each count one higher (Laplace).

    At most the first 16,777,216 tokens of each split are counted; the name says so where there are more.

    Args:
        data: token sequences.
        vocab_size: tokens are below it.
        metric: what the bits are called: "eval/bits_per_byte" or "eval/bits_per_token".
    """
    train, all_train = counted_targets(data.train, _LIMIT)
    valid, all_valid = counted_targets(data.valid, _LIMIT)
    counts = np.bincount(train, minlength=vocab_size) + 1
    bits = np.log2(counts.sum()) - np.log2(counts)
    name = "unigram" if all_train and all_valid else f"unigram (first {_LIMIT:,} tokens)"
    return Baseline(name, metric, float(bits[valid].mean()))

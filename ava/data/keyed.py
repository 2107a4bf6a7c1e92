"""Random numbers without a generator: each is a hash of where it is used.

A stateful generator gives sample 17 another number when 16 samples were drawn before it than when 15 were. Here the
numbers of a sample depend on (seed, epoch, index) alone, so they are the same in any batch, order, rank or worker,
and there is no state to save. The hash is splitmix64: a counter times the golden ratio, put through a finaliser.

Reference: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators"; Salmon et al. 2011, "Parallel
random numbers: as easy as 1, 2, 3" for the idea of counters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_WORD = 2**64 - 1


def uniform(seed: int, epoch: int, indices: np.ndarray, num: int) -> np.ndarray:
    """Uniform numbers in [0, 1), `num` for each sample.

    Args:
        seed: the run's seed, any integer.
        epoch: the pass over the data, any integer.
        indices: (B,) integers, the samples.
        num: numbers per sample.
    Returns:
        (B, num) float32, multiples of 2**-24; row b depends on (seed, epoch, indices[b]) only.
    """
    stream = _mix(_mix(_word(seed)) + _word(epoch))
    key = _mix(stream + np.asarray(indices).astype(np.uint64) * _GOLDEN)
    counters = key[:, None] + np.arange(1, num + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(counters) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _word(number: int) -> NDArray[np.uint64]:
    """An integer as a (1,) array of 64 bits: arrays wrap around in silence, numpy's scalars warn."""
    return np.array([number & _WORD], dtype=np.uint64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64: each input bit flips about half of the output bits."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))

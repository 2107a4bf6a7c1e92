"""Keyed random numbers: the same however samples are grouped, and random enough."""

from __future__ import annotations

import numpy as np
import pytest

from ava.data.keyed import uniform

GOLDEN = 0x9E3779B97F4A7C15


def test_numbers_do_not_depend_on_how_samples_are_batched_or_ordered():
    indices = np.arange(1000)
    whole = uniform(7, 3, indices, 5)
    order = np.random.default_rng(0).permutation(1000)
    assert np.array_equal(uniform(7, 3, order, 5), whole[order])
    for ranks in (2, 3):
        for rank in range(ranks):
            assert np.array_equal(uniform(7, 3, indices[rank::ranks], 5), whole[rank::ranks])
    assert np.array_equal(np.concatenate([uniform(7, 3, indices[i : i + 7], 5) for i in range(0, 1000, 7)]), whole)


def test_more_numbers_begin_with_the_same_ones():
    assert np.array_equal(uniform(1, 2, np.arange(10), 9)[:, :4], uniform(1, 2, np.arange(10), 4))


def _mix(x: int) -> int:
    x = (x + GOLDEN) % 2**64
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


@pytest.mark.parametrize(("seed", "epoch", "index"), [(0, 0, 0), (42, 7, 10**12), (-3, 2**40, 5)])
def test_equal_to_the_hash_on_plain_integers(seed, epoch, index):
    key = _mix((_mix(_mix(seed % 2**64) + epoch) + index * GOLDEN) % 2**64)
    expected = [(_mix((key + j * GOLDEN) % 2**64) >> 40) / 2**24 for j in (1, 2, 3)]
    assert uniform(seed, epoch, np.array([index]), 3)[0].tolist() == expected


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63, 2**70])
def test_values_lie_in_range_and_spread(seed):
    numbers = uniform(seed, 0, np.arange(20_000), 4)
    assert numbers.dtype == np.float32
    assert numbers.shape == (20_000, 4)
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    histogram = np.histogram(numbers, bins=16, range=(0, 1))[0] / numbers.size
    assert np.abs(histogram - 1 / 16).max() < 3e-3


def test_columns_neighbours_epochs_and_seeds_are_uncorrelated():
    indices = np.arange(20_000)
    base = uniform(0, 0, indices, 3)
    others = [base[:, 1], base[:, 2], np.roll(base[:, 0], 1), uniform(0, 1, indices, 1)[:, 0]]
    others += [uniform(1, 0, indices, 1)[:, 0], uniform(0, 0, indices + 20_000, 1)[:, 0]]
    for other in others:
        assert abs(np.corrcoef(base[:, 0], other)[0, 1]) < 0.03


def test_seed_and_epoch_do_not_trade_places():
    assert not np.array_equal(uniform(1, 2, np.arange(8), 1), uniform(2, 1, np.arange(8), 1))
    assert not np.array_equal(uniform(0, 1, np.arange(8), 1), uniform(1, 0, np.arange(8), 1))

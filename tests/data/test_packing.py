"""Plans of packing: nothing lost, nothing split that fits, and best fit as the book has it."""

from __future__ import annotations

import numpy as np
import pytest

from ava.data.packing import best_fit, plan_best_fit, plan_in_order


def slow_best_fit(sizes, capacity):
    """Best-fit decreasing, word for word."""
    spaces, bins = [], np.zeros(len(sizes), dtype=np.int64)
    for item in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fitting = [b for b, space in enumerate(spaces) if space >= sizes[item]]
        if not fitting:
            spaces.append(capacity)
            fitting = [len(spaces) - 1]
        bins[item] = min(fitting, key=lambda b: spaces[b])
        spaces[bins[item]] -= sizes[item]
    return bins


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("capacity", [1, 7, 64])
def test_best_fit_fills_as_its_slow_twin(seed, capacity):
    sizes = np.random.default_rng(seed).integers(1, capacity + 1, 200)
    fast, slow = best_fit(sizes, capacity), slow_best_fit(sizes, capacity)
    fills = [np.bincount(bins, weights=sizes) for bins in (fast, slow)]
    assert fills[0].max() <= capacity
    assert sorted(fills[0]) == sorted(fills[1])


def test_best_fit_leaves_the_least_space():
    assert best_fit(np.array([6, 5, 4, 3, 2]), 10).tolist() == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("make", [plan_best_fit, plan_in_order])
@pytest.mark.parametrize("seed", range(3))
def test_every_piece_stands_in_one_sequence(make, seed):
    lengths = np.random.default_rng(seed).integers(1, 50, 100)
    plan = make(lengths, 16)
    pieces = sorted(zip(plan.owner.tolist(), plan.piece.tolist(), strict=True))
    assert pieces == [(d, k) for d, n in enumerate(lengths) for k in range(-(-n // 16))]
    sizes = np.minimum(16, lengths[plan.owner] - 16 * plan.piece)
    filled = np.add.reduceat(sizes, plan.first[:-1])
    assert filled.max() <= 16
    assert filled.sum() == lengths.sum()


def test_in_order_is_in_order():
    plan = plan_in_order(np.array([3, 20, 4, 4, 9]), 10)
    assert plan.owner.tolist() == [0, 1, 1, 2, 3, 4]
    assert plan.piece.tolist() == [0, 0, 1, 0, 0, 0]
    assert plan.first.tolist() == [0, 1, 2, 3, 5, 6]


@pytest.mark.parametrize("make", [plan_best_fit, plan_in_order])
def test_no_documents_make_no_sequence(make):
    assert make(np.zeros(0, dtype=np.int64), 8).first.tolist() == [0]

"""The solvers meet the conditions that a minimum has, also where the problem is as bad as gradients get."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ava.optimization.gradients.surgery.solvers.bargaining import bargain
from ava.optimization.gradients.surgery.solvers.min_norm import min_norm_point
from ava.optimization.gradients.surgery.solvers.nonnegative import minimise_nonnegative
from ava.optimization.gradients.surgery.solvers.worst_improvement import correction

Array = NDArray[np.float64]

KINDS = ("independent", "flat", "equal pairs", "opposite", "vanishing sum", "one way")
SIZES = (2, 3, 8, 32)


def gram_of(kind: str, size: int, spread: float = 1.0, seed: int = 0) -> Array:
    """(T, T), the longest row of length 1, from rows of the kind whose lengths spread by the factor."""
    random = np.random.default_rng(100 * size + seed)
    rows = random.standard_normal((size, 3 if kind == "flat" else 300))
    if kind == "equal pairs":
        rows[1::2] = rows[: size - 1 : 2]
    elif kind == "opposite":
        rows[1] = -rows[0]
    elif kind == "vanishing sum":
        rows -= rows.mean(axis=0)
    elif kind == "one way":
        rows += 1
    rows *= random.permutation(np.geomspace(1, spread, size))[:, None]
    gram = rows @ rows.T
    return np.asarray(gram / gram.diagonal().max())


def cosines_of(kind: str, size: int) -> Array:
    gram = gram_of(kind, size)
    lengths = np.sqrt(gram.diagonal())
    return np.asarray(gram / lengths / lengths[:, None])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_nonnegative_minimum_meets_its_conditions(kind: str, size: int) -> None:
    matrix = cosines_of(kind, size)
    linear = matrix @ np.random.default_rng(size).standard_normal((size, 5)) / size**0.5
    found = minimise_nonnegative(matrix, linear.T)
    slope = found @ matrix - linear.T
    assert (found >= 0).all()
    assert (slope >= -1e-9).all()
    assert np.abs(slope * found).max() < 1e-9


def test_nonnegative_minimum_of_least_length_is_chosen() -> None:
    matrix = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    found = minimise_nonnegative(matrix, np.array([[1.0, 1, -1]]))
    np.testing.assert_allclose(found, [[0.5, 0.5, 0]], atol=1e-6)


def test_nonnegative_programs_do_not_touch_each_other() -> None:
    matrix, linear = cosines_of("flat", 8), np.random.default_rng(0).standard_normal((8, 8))
    alone = np.concatenate([minimise_nonnegative(matrix, row[None]) for row in linear @ matrix])
    np.testing.assert_allclose(minimise_nonnegative(matrix, linear @ matrix), alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_min_norm_point_is_the_minimum(kind: str, size: int, spread: float) -> None:
    """The gap w'Gw - min_i (Gw)_i bounds how far the squared norm is above the minimum."""
    for seed in range(3):
        gram = gram_of(kind, size, spread, seed)
        found = min_norm_point(gram)
        products = gram @ found
        assert (found >= 0).all()
        assert found.sum() == pytest.approx(1, abs=1e-12)
        assert found @ products - products.min() <= 1e-10 * (found**2 @ gram.diagonal())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["independent", "one way"])
def test_bargain_solves_its_equation(kind: str, size: int) -> None:
    matrix = cosines_of(kind, size)
    found = bargain(matrix)
    np.testing.assert_allclose(found * (matrix @ found), 1, atol=1e-7)


@pytest.mark.parametrize("angle", [1e-1, 1e-3, 1e-4])
def test_bargain_follows_nearly_opposite_gradients(angle: float) -> None:
    cosine = -np.cos(angle)
    found = bargain(np.array([[1, cosine], [cosine, 1]]))
    np.testing.assert_allclose(found, (1 + cosine) ** -0.5, rtol=0.01)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("spread", [1.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_correction_is_the_best_of_its_ball(kind: str, size: int, spread: float, c: float) -> None:
    """Every w of the simplex bounds min_i <g_i, d> from above; the correction itself or the shortest w meets it."""
    gram = gram_of(kind, size, spread)
    found, mean = correction(gram, c), np.full(size, 1 / size)
    radius = c * np.sqrt(max(mean @ gram @ mean, 0))
    assert (found >= 0).all()
    assert np.sqrt(max(found @ gram @ found, 0)) <= radius * (1 + 1e-7) + 1e-12
    bounds = [
        w @ gram @ mean + radius * np.sqrt(max(w @ gram @ w, 0))
        for w in (found / max(found.sum(), 1e-300), min_norm_point(gram))
        if w.any()
    ]
    assert min(bounds) - (gram @ (mean + found)).min() <= 1e-10 * radius + 1e-15

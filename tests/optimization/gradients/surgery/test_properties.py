"""What the papers prove, for gradients of many kinds; and what no method may depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ava.optimization import get_surgery
from ava.optimization.gradients.surgery.objectives import Objectives
from tests.optimization.gradients.surgery.oracles import METHODS, direction, jacobian, weights

ALIKE = tuple(name for name in METHODS if name != "pcgrad")
"""Those without random numbers."""

SIZES = (1, 2, 3, 5, 8, 16, 32)


def vectors(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def is_without_conflict(rows: Tensor, found: Tensor, tolerance: float = 1e-7) -> bool:
    """No gradient is opposed by more than rounding: of what is added up to the direction, not of what remains."""
    lengths = rows.norm(dim=1)
    slack = tolerance * float((found.abs() * lengths).max()) * lengths
    return bool((rows @ (found @ rows) >= -slack).all())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", METHODS)
def test_equal_gradients_get_weight_one(name: str, size: int) -> None:
    rows = jacobian(1, length=20).expand(size, -1)
    options = {"rescale": "linear"} if name == "cagrad" else {}
    found = weights(name, rows, **options)
    torch.testing.assert_close(found, torch.ones(size, dtype=torch.float64), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["sum", "pcgrad", "upgrad"])
def test_gradients_without_conflict_get_weight_one(name: str) -> None:
    rows = jacobian(6).abs()
    torch.testing.assert_close(weights(name, rows), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-6, 1e6, 1e-25, 1e25])
@pytest.mark.parametrize("name", METHODS)
def test_weights_do_not_depend_on_the_unit(name: str, factor: float) -> None:
    rows = jacobian(5, spread=10.0)
    torch.testing.assert_close(weights(name, factor * rows), weights(name, rows), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ALIKE)
@pytest.mark.parametrize("length", [3, 50], ids=("dependent", "independent"))
def test_weights_follow_the_order_of_the_objectives(name: str, length: int) -> None:
    rows = jacobian(6, length=length, spread=10.0)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(weights(name, rows[order]), weights(name, rows)[order], rtol=1e-5, atol=1e-6)


def test_pcgrad_follows_the_order_on_average() -> None:
    rows, method = jacobian(3, length=3), get_surgery("pcgrad")
    drawn = [
        torch.stack([method(Objectives(some @ some.T, step=step)) for step in range(1500)])
        for some in (rows, rows.flip(0))
    ]
    error = sum(found.var(dim=0) / len(found) for found in (drawn[0], drawn[1].flip(1)))
    assert isinstance(error, Tensor)
    assert ((drawn[0].mean(dim=0) - drawn[1].mean(dim=0).flip(0)).abs() <= 4 * error.sqrt() + 1e-12).all()


@pytest.mark.parametrize("name", ["imtl_g", "nash_mtl"])
def test_direction_does_not_depend_on_a_single_gradients_length(name: str) -> None:
    rows = jacobian(5)
    scaled = rows * vectors([1e-2], [30.0], [1.0], [7.0], [0.5])
    one, other = direction(name, rows), direction(name, scaled)
    torch.testing.assert_close(one / one.norm(), other / other.norm(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["mgda", "upgrad", "nash_mtl", "imtl_g"])
def test_no_objective_is_opposed(name: str, size: int, spread: float) -> None:
    rows = jacobian(size, spread=spread)
    assert is_without_conflict(rows, weights(name, rows))


@pytest.mark.parametrize("length", [2, 3, 5])
@pytest.mark.parametrize("name", ["mgda", "upgrad", "nash_mtl"])
def test_no_objective_is_opposed_among_dependent_gradients(name: str, length: int) -> None:
    for seed in range(10):
        rows = jacobian(8, length=length, seed=seed, spread=100.0)
        assert is_without_conflict(rows, weights(name, rows)), seed


@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_two_gradients_are_not_opposed_by_pcgrad(spread: float) -> None:
    for seed in range(20):
        rows = jacobian(2, length=3, seed=seed, spread=spread)
        assert is_without_conflict(rows, weights("pcgrad", rows))


def test_cagrad_opposes_no_objective_beyond_c_of_one() -> None:
    for seed in range(20):
        rows = jacobian(5, length=10, seed=seed, spread=10.0)
        assert is_without_conflict(rows, weights("cagrad", rows, c=1.0))


@pytest.mark.parametrize("size", [2, 3, 5, 16])
def test_imtl_g_has_equal_projections(size: int) -> None:
    rows = jacobian(size, spread=100.0)
    projections = (rows @ direction("imtl_g", rows)) / rows.norm(dim=1)
    torch.testing.assert_close(projections, projections.mean().expand(size), rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [2, 3, 5, 16])
def test_aligned_mtl_makes_gradients_orthogonal(size: int) -> None:
    """The sum of orthogonal rows of length s is sqrt(T) s long, where s^2 is the smallest eigenvalue."""
    rows = jacobian(size, spread=10.0)
    least = torch.linalg.eigvalsh(rows @ rows.T)[0]
    found = direction("aligned_mtl", rows).square().sum()
    torch.testing.assert_close(found, size * least, rtol=1e-6, atol=0)


STATIONARY = {
    "opposite": vectors([1, 2, 0], [-1, -2, 0]),
    "opposite, unlike lengths": vectors([1, 2, 0], [-30, -60, 0]),
    "triangle": vectors([1, 0], [-0.5, 0.8], [-0.5, -0.8]),
    "opposite, doubled": vectors([1, 1], [-2, -2], [1, 1], [-2, -2]),
}


@pytest.mark.parametrize("rows", STATIONARY.values(), ids=STATIONARY)
@pytest.mark.parametrize("name", ["mgda", "nash_mtl", "upgrad", "imtl_g"])
def test_direction_is_zero_at_pareto_stationary_points(name: str, rows: Tensor) -> None:
    found = weights(name, rows)
    assert found.isfinite().all()
    assert (found > 0).all()
    size = 1e-4 if name == "nash_mtl" else 1e-6
    assert float((found @ rows).norm()) <= size * float((found[:, None] * rows).norm(dim=1).max())


@pytest.mark.parametrize("name", ["mgda", "nash_mtl"])
def test_weights_at_a_pareto_stationary_point_are_the_vanishing_combination(name: str) -> None:
    torch.testing.assert_close(
        weights(name, vectors([1, 2, 0], [-3, -6, 0])), torch.tensor([1.5, 0.5], dtype=torch.float64), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", ["sum", "pcgrad", "imtl_g", "nash_mtl", "aligned_mtl", "upgrad"])
def test_zero_gradient_changes_nothing(name: str) -> None:
    rows = jacobian(2)
    among = torch.stack([rows[0], torch.zeros(50, dtype=torch.float64), rows[1]])
    expected = torch.tensor([weights(name, rows)[0], 1, weights(name, rows)[1]], dtype=torch.float64)
    torch.testing.assert_close(weights(name, among), expected, rtol=1e-9, atol=1e-12)


def test_zero_gradient_is_a_pareto_stationary_point() -> None:
    among = torch.cat([jacobian(2), torch.zeros(2, 50, dtype=torch.float64)])
    assert weights("mgda", among).tolist() == [0, 0, 2, 2]
    assert weights("mgda", among, normalization="l2").tolist() == [0, 0, 2, 2]


def test_cagrad_bears_a_zero_gradient() -> None:
    among = torch.cat([jacobian(3), torch.zeros(1, 50, dtype=torch.float64)])
    found = weights("cagrad", among)
    assert found.isfinite().all()
    assert is_without_conflict(among[:3], found[:3])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", METHODS)
def test_zero_gradients_alone_get_weight_one(name: str, size: int) -> None:
    assert weights(name, torch.zeros(size, 4, dtype=torch.float64)).tolist() == [1] * size


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_float64_and_the_gram_matrix_is_left_alone(name: str) -> None:
    rows = jacobian(4)
    gram = rows @ rows.T
    before = gram.clone()
    found = get_surgery(name)(Objectives(gram))
    assert found.dtype == torch.float64
    assert found.shape == (4,)
    assert torch.equal(gram, before)

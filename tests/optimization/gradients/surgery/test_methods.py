"""Each method against its paper: another library's, its slow twin, or the equations that define it."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor
from torchjd import aggregation

from ava.errors import InputError
from ava.optimization import get_surgery
from ava.optimization.gradients.surgery.methods.pcgrad import _orders
from ava.optimization.gradients.surgery.objectives import Objectives
from tests.optimization.gradients.surgery import oracles
from tests.optimization.gradients.surgery.oracles import METHODS, direction, jacobian, weights

SIZES = (2, 3, 5, 8, 16)
SPREADS = (1.0, 100.0)

GOLDEN = {
    "none": [1.0, 1.0, 1.0],
    "sum": [1.0, 1.0, 1.0],
    "pcgrad": [1.277778, 1.428571, 1.166667],
    "mgda": [0.675573, 0.89313, 1.431298],
    "cagrad": [1.0, 1.267923, 2.002691],
    "imtl_g": [0.842758, 1.017507, 1.139735],
    "nash_mtl": [1.430326, 1.701335, 2.173947],
    "aligned_mtl": [0.704609, 0.824197, 1.048658],
    "upgrad": [1.299804, 1.440741, 1.226908],
}
"""Weights of the rows (4, 1, 0, 1), (-2, 3, 1, 0), (0, -1, 2, 1) with seed 0."""


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str) -> None:
    rows = torch.tensor([[4.0, 1, 0, 1], [-2, 3, 1, 0], [0, -1, 2, 1]], dtype=torch.float64)
    close(weights(name, rows), torch.tensor(GOLDEN[name], dtype=torch.float64), 1e-6)


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("sum", {}, aggregation.Sum()),
        ("aligned_mtl", {}, aggregation.AlignedMTL()),
        ("aligned_mtl", {"scale": "median"}, aggregation.AlignedMTL(scale_mode="median")),
        ("aligned_mtl", {"scale": "rmse"}, aggregation.AlignedMTL(scale_mode="rmse")),
    ],
    ids=("sum", "aligned_min", "aligned_median", "aligned_rmse"),
)
def test_equals_torchjd(name: str, options: dict[str, str], theirs: torch.nn.Module, size: int, spread: float) -> None:
    rows = jacobian(size, spread=spread)
    of_a_mean = 1 if name == "sum" else size
    close(direction(name, rows, **options), of_a_mean * theirs(rows))


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", SIZES)
def test_imtl_g_equals_torchjd_but_for_its_sign(size: int, spread: float) -> None:
    rows = jacobian(size, spread=spread)
    ours, theirs = direction("imtl_g", rows), size * aggregation.IMTLG()(rows)
    close(ours, theirs if ours @ theirs > 0 else -theirs)
    assert (rows @ ours > 0).all()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_mgda_equals_torchjd_given_time(size: int) -> None:
    rows = jacobian(size)
    close(direction("mgda", rows), size * aggregation.MGDA(epsilon=1e-9, max_iters=100_000)(rows), 1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_mgda_is_shorter_than_torchjd_and_without_conflict(seed: int) -> None:
    rows = jacobian(16, seed=seed, spread=100.0)
    ours, theirs = direction("mgda", rows) / 16, aggregation.MGDA()(rows)
    assert ours.norm() <= theirs.norm() * (1 + 1e-12)
    assert (rows @ ours).min() >= ours.square().sum() * (1 - 1e-9)


@pytest.mark.parametrize("spread", [1.0, 1e4])
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_mgda_is_the_minimum_over_all_faces(size: int, spread: float) -> None:
    for seed in range(3):
        rows = jacobian(size, length=20, seed=seed, spread=spread)
        found = float(direction("mgda", rows).square().sum()) / size**2
        assert found == pytest.approx(oracles.min_norm_square(rows), rel=1e-9)


@pytest.mark.parametrize("normalization", ["l2", "loss", "loss+"])
def test_mgda_with_divisors_is_mgda_of_divided_gradients(normalization: str) -> None:
    rows, losses = jacobian(4, spread=10.0), torch.tensor([0.1, 2.0, 0.5, 30.0], dtype=torch.float64)
    divisors = {"l2": rows.norm(dim=1), "loss": losses, "loss+": losses * rows.norm(dim=1)}[normalization]
    divided = direction("mgda", rows / divisors[:, None])
    found = weights("mgda", rows, losses=losses, normalization=normalization)
    close((found @ rows) / (found @ rows).norm(), divided / divided.norm())
    assert float(found.sum()) == pytest.approx(4)


@pytest.mark.parametrize("normalization", ["loss", "loss+"])
def test_mgda_bears_a_loss_of_zero(normalization: str) -> None:
    rows, losses = jacobian(3), torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    found = weights("mgda", rows, losses=losses, normalization=normalization)
    assert float(found.sum()) == pytest.approx(3)
    assert (rows @ (found @ rows) > -1e-9).all()


@pytest.mark.parametrize(
    ("losses", "said"), [(None, "values of the losses"), ([1.0, -2.0], "not -2")], ids=("unknown", "negative")
)
def test_mgda_says_which_losses_it_cannot_divide_by(losses: list[float] | None, said: str) -> None:
    given = None if losses is None else torch.tensor(losses, dtype=torch.float64)
    with pytest.raises(InputError, match=said):
        weights("mgda", jacobian(2), losses=given, normalization="loss")


@pytest.mark.parametrize("size", SIZES)
def test_pcgrad_equals_the_algorithm_on_vectors(size: int) -> None:
    rows = jacobian(size, length=6, spread=10.0)
    objectives = Objectives(rows @ rows.T, seed=3)
    orders = _orders(size, objectives.generator()).tolist()
    close(get_surgery("pcgrad")(objectives) @ rows, oracles.pcgrad(rows, orders))


def test_pcgrad_meets_all_others_in_every_order_and_never_itself() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = [[tuple(order) for order in _orders(4, generator).tolist()] for _ in range(400)]
    for own in range(4):
        orders = {draw[own] for draw in seen}
        assert len(orders) == 6
        assert all(set(order) == {0, 1, 2, 3} - {own} for order in orders)
    assert any(draw[2].index(0) != draw[3].index(0) for draw in seen)


def test_pcgrad_has_torchjds_distribution() -> None:
    rows = jacobian(4, length=4)
    pcgrad = get_surgery("pcgrad")
    torch.manual_seed(0)
    ours = torch.stack([pcgrad(Objectives(rows @ rows.T, step=step)) @ rows for step in range(1000)])
    theirs = torch.stack([aggregation.PCGrad()(rows) for _ in range(1000)])
    error = (ours.var(dim=0) / 1000 + theirs.var(dim=0) / 1000).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * error + 1e-12).all()
    assert {tuple(row.round(decimals=6).tolist()) for row in ours} == {
        tuple(row.round(decimals=6).tolist()) for row in theirs
    }


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("size", [2, 3, 5])
def test_upgrad_is_the_sum_of_projections_on_the_dual_cone(size: int, spread: float) -> None:
    rows = jacobian(size, length=6, spread=spread)
    expected = sum(oracles.project_on_dual_cone(rows, row) for row in rows)
    close(direction("upgrad", rows), expected, 1e-8)


@pytest.mark.parametrize("spread", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
def test_nash_mtl_solves_its_equation(size: int, spread: float) -> None:
    rows = jacobian(size, spread=spread)
    gram, found = rows @ rows.T, weights("nash_mtl", rows)
    close(gram @ found * found / torch.linalg.matrix_norm(gram), torch.ones(size, dtype=torch.float64), 1e-7)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9, 2.0])
@pytest.mark.parametrize("spread", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("size", SIZES)
def test_cagrad_is_the_best_of_its_ball(size: int, spread: float, c: float) -> None:
    """No direction of the ball has a larger min_i <g_i, d> than g_w'g_0 + c |g_0| |g_w|, for any w of the simplex."""
    rows = jacobian(size, spread=spread)
    mean, found = rows.mean(dim=0), weights("cagrad", rows, c=c, rescale="none") / size
    best, radius = found @ rows, c * mean.norm()
    assert float((best - mean).norm()) == pytest.approx(float(radius), rel=1e-7)
    shares = (found - 1 / size) / (found - 1 / size).sum()
    bound = shares @ rows @ mean + radius * (shares @ rows).norm()
    assert (shares >= 0).all()
    assert float((rows @ best).min()) == pytest.approx(
        float(bound), abs=1e-8 * float(shares @ rows.norm(dim=1) * mean.norm())
    )


@pytest.mark.parametrize(("rescale", "divisor"), [("none", 1), ("linear", 1.4), ("quadratic", 1.16)])
def test_cagrad_rescales(rescale: str, divisor: float) -> None:
    rows = jacobian(3)
    close(direction("cagrad", rows, c=0.4, rescale=rescale) * divisor, direction("cagrad", rows, c=0.4, rescale="none"))


def test_cagrad_goes_from_the_sum_to_mgda() -> None:
    rows = jacobian(5)
    close(weights("cagrad", rows, c=0.0), torch.ones(5, dtype=torch.float64))
    far, shortest = direction("cagrad", rows, c=1e4), direction("mgda", rows)
    close(far / far.norm(), shortest / shortest.norm(), 1e-3)


def test_cagrad_beside_a_vanishing_combination_stays_at_the_mean() -> None:
    rows = torch.tensor([[1.0, 0], [-1, 0], [0, 1]], dtype=torch.float64)
    close(direction("cagrad", rows, rescale="none"), rows.sum(dim=0))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf")], ids=("nan", "inf"))
def test_garbage_gives_no_exception(name: str, garbage: float) -> None:
    gram = jacobian(8) @ jacobian(8).T
    gram[3] = gram[:, 3] = garbage
    started = time.perf_counter()
    found = get_surgery(name)(Objectives(gram))
    assert time.perf_counter() - started < 1
    assert found.isnan().all() or (found == 1).all()


@pytest.mark.bench
@pytest.mark.parametrize("name", METHODS)
def test_weights_of_eight_objectives_take_no_time(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Beside backward passes of many milliseconds; processor time, as other processes run."""
    method, rows = get_surgery(name), jacobian(8, spread=100.0)
    gram, seconds = rows @ rows.T, []
    for _ in range(21):
        started = time.thread_time()
        method(Objectives(gram))
        seconds.append(time.thread_time() - started)
    typical = sorted(seconds)[10]
    with capsys.disabled():
        print(f"\n{name}: {1000 * typical:.3f} ms", end="")
    assert typical < 0.01

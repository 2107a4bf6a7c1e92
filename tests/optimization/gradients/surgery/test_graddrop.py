"""GradDrop keeps one sign of each element, by the share it has, alike however the tensors are cut."""

from __future__ import annotations

import pytest
import torch
import torchjd
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.methods.graddrop import graddrop
from ava.optimization.gradients.surgery.rows import Rows


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def as_rows(matrix, **changes):
    """(T, n) as T lists of one tensor."""
    return Rows([[row] for row in matrix], **changes)


def from_the_paper(gradients, uniform, leak, signs=1.0):
    """Algorithm 1, one element at a time; `gradients` and `signs` (T, B, n), `uniform` (n,)."""
    batch = (gradients * signs).sum(1)
    combined = torch.zeros_like(gradients[0])
    for k in range(gradients.shape[2]):
        purity = 0.5 * (1 + batch[:, k].sum() / batch[:, k].abs().sum())
        for i, share in enumerate(leak):
            keep = batch[i, k] > 0 if purity > uniform[k] else batch[i, k] < 0
            combined[:, k] += (share + (1 - share) * float(keep)) * gradients[i, :, k]
    return combined


@pytest.mark.parametrize("leak", [(0.0, 0.0, 0.0), (0.2, 0.2, 0.2), (1.0, 0.0, 0.5)], ids=str)
def test_equals_the_paper_element_by_element(leak):
    matrix = random(3, 50)
    rows = as_rows(matrix, step=4, seed=2)
    expected = from_the_paper(matrix[:, None], rows.uniform(0, matrix[0]), leak)[0]
    torch.testing.assert_close(graddrop(rows, leak=leak)[0], expected, rtol=1e-12, atol=1e-12)


def test_of_features_one_decision_is_made_for_all_samples():
    gradients, features = random(3, 7, 20), random(7, 20, seed=1)
    rows = Rows([[g] for g in gradients], features=[features])
    expected = from_the_paper(gradients, rows.uniform(0, features[0]), (0.1,) * 3, features.sign())
    torch.testing.assert_close(graddrop(rows, leak=0.1)[0], expected, rtol=1e-12, atol=1e-12)


def test_of_features_ranks_decide_by_the_sum_of_their_batches():
    gradients, features = random(2, 8, 20), random(8, 20, seed=1)
    whole = graddrop(Rows([[g] for g in gradients], features=[features]))[0]
    signed = (gradients * features.sign()).sum(1)
    for part in (slice(0, 3), slice(3, 8)):
        rows = Rows([[g[part]] for g in gradients], features=[features[part]], sums=lambda _: signed)
        torch.testing.assert_close(graddrop(rows)[0], whole[part])


def test_the_expectation_is_that_of_torchjd_and_the_sum():
    matrix, leak = random(3, 6), torch.tensor([0.3, 0.3, 0.3], dtype=torch.float64)
    ours = torch.stack([graddrop(as_rows(matrix, step=k), leak=0.3)[0] for k in range(1000)]).mean(0)
    torch.manual_seed(0)
    aggregate = torchjd.aggregation.GradDrop(leak=leak)
    theirs = torch.stack([aggregate(matrix) for _ in range(1000)]).mean(0)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.25)
    torch.testing.assert_close(ours, matrix.sum(0), rtol=0, atol=0.2)


@pytest.mark.parametrize("step", range(5))
def test_with_every_leak_or_one_sign_it_is_the_sum(step):
    matrix = random(3, 40)
    torch.testing.assert_close(graddrop(as_rows(matrix, step=step), leak=1.0)[0], matrix.sum(0))
    torch.testing.assert_close(graddrop(as_rows(matrix.abs(), step=step))[0], matrix.abs().sum(0))
    torch.testing.assert_close(graddrop(as_rows(-matrix.abs(), step=step))[0], -matrix.abs().sum(0))


def test_opposite_gradients_leave_one_of_them():
    gradient = random(1000)
    combined = graddrop(as_rows(torch.stack([gradient, -gradient])))[0]
    torch.testing.assert_close(combined.abs(), gradient.abs())
    assert 0.4 < ((combined > 0).double().mean()) < 0.6


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_scale_does_not_matter(scale):
    matrix = random(4, 30)
    expected = graddrop(as_rows(matrix))[0] * scale
    torch.testing.assert_close(graddrop(as_rows(matrix * scale))[0], expected, rtol=1e-9, atol=0)


def test_the_order_of_objectives_does_not_matter():
    matrix = random(4, 30)
    torch.testing.assert_close(graddrop(as_rows(matrix))[0], graddrop(as_rows(matrix[[2, 0, 3, 1]]))[0])


def test_renormalized_it_is_as_long_as_the_sum():
    rows = Rows([[random(5, 6, seed=s), random(7, seed=s + 9), torch.zeros(2).double()] for s in range(3)])
    plain, scaled = graddrop(rows), graddrop(rows, renormalize=True)
    for k in range(2):
        total = sum(row[k] for row in rows.gradients)
        torch.testing.assert_close(scaled[k].norm(), total.norm())
        torch.testing.assert_close(scaled[k] / scaled[k].norm(), plain[k] / plain[k].norm())
    assert not scaled[2].any()


def test_numbers_change_with_seed_step_and_tensor_and_fill_the_interval():
    like = torch.zeros(100, 100)
    drawn = [Rows([[like]], step=s, seed=r).uniform(i, like) for s in (0, 1) for r in (0, 1) for i in (0, 1)]
    correlation = torch.corrcoef(torch.stack([d.flatten() for d in drawn])) - torch.eye(8)
    assert correlation.abs().max() < 0.04
    for d in drawn:
        assert 0 <= d.min() < 0.001
        assert 0.999 < d.max() < 1
        assert abs(d.mean() - 0.5) < 0.01


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")], ids=str)
@pytest.mark.parametrize("others", [1.0, -1.0])
def test_what_is_not_finite_stays_visible(bad, others):
    matrix = torch.tensor([[bad, 1.0], [others, 1.0]])
    for step in range(4):
        combined = graddrop(as_rows(matrix, step=step))[0]
        assert not combined[0].isfinite()
        assert combined[1] == 2


def test_an_objective_that_does_not_reach_a_tensor_counts_as_zero():
    given = random(3, 4)
    combined = graddrop(Rows([[given, None], [None, given], [given, given]]))
    torch.testing.assert_close(combined, [2 * given, 2 * given])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_type_stays(dtype):
    assert graddrop(as_rows(random(2, 9, dtype=torch.float32).to(dtype)))[0].dtype == dtype


def test_as_many_leaks_as_objectives():
    with pytest.raises(InputError, match="one of each of the 2 objectives"):
        graddrop(as_rows(random(2, 3)), leak=(0.1, 0.2, 0.3))


@pytest.fixture
def mesh():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


def test_sharded_tensors_come_back_sharded(mesh):
    matrix = random(3, 8, 5)
    whole = graddrop(as_rows(matrix), renormalize=True)[0]
    sharded = [[distribute_tensor(row, mesh, [Shard(1)])] for row in matrix]
    combined = graddrop(Rows(sharded), renormalize=True)[0]
    assert combined.placements == (Shard(1),)
    torch.testing.assert_close(combined.full_tensor(), whole)


@pytest.mark.parametrize("dim", [0, 1])
def test_a_shard_draws_what_the_whole_draws(dim):
    """Each of three ranks, one after the other, without a process group of its own."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    whole = torch.zeros(7, 5)
    expected = Rows([[whole]]).uniform(3, whole).chunk(3, dim)
    for rank in range(3):
        torch.distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=3)
        try:
            shard = distribute_tensor(whole, init_device_mesh("cpu", (3,)), [Shard(dim)], src_data_rank=None)
            assert torch.equal(Rows([[shard]]).uniform(3, shard), expected[rank])
        finally:
            torch.distributed.destroy_process_group()

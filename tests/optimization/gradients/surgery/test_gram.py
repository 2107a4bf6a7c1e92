"""The Gram matrix is that of the whole gradients in float64, however they are stored; `combine` adds them up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.gram import combine, gram_matrix
from tests.distributed.two_ranks import run_on_two_ranks

SHAPES = ((5, 3), (300, 400), (), (7,), (70_000,), (2, 3, 3, 3))


def rows_of(num_rows: int = 3, dtype: torch.dtype = torch.float32) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(num_rows)
    return [[torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES] for _ in range(num_rows)]


def matrix_of(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.cat([part.double().flatten() for part in row]) for row in rows])


def exact(rows: list[list[Tensor]]) -> Tensor:
    return matrix_of(rows) @ matrix_of(rows).T


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    """As shares of the lengths of the two gradients."""
    lengths = expected.diagonal().sqrt()
    assert float(((found - expected).abs() / lengths / lengths[:, None]).max()) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("num_rows", [1, 2, 8])
def test_is_that_of_the_whole_gradients(num_rows: int, dtype: torch.dtype) -> None:
    rows = rows_of(num_rows, dtype)
    found = gram_matrix(rows)
    assert found.dtype == torch.float64
    close(found, exact(rows), 1e-13 if dtype == torch.float64 else 1e-6)


def test_none_is_zero() -> None:
    rows = rows_of()
    whole = [
        [torch.zeros_like(part) if (i + k) % 3 == 0 else part for k, part in enumerate(row)]
        for i, row in enumerate(rows)
    ]
    missing = [[None if (i + k) % 3 == 0 else part for k, part in enumerate(row)] for i, row in enumerate(rows)]
    close(gram_matrix(missing), exact(whole))
    nothing = gram_matrix([rows[0], [None] * len(SHAPES)])
    assert nothing[1].tolist() == [0, 0]


def test_gradients_need_not_be_contiguous() -> None:
    rows = rows_of()
    strided = [[part.t() if part.ndim == 2 else part for part in row] for row in rows]
    close(gram_matrix(strided), exact([[part.contiguous() for part in row] for row in strided]))


@pytest.mark.parametrize("length", [10, 200_000])
def test_rows_of_one_buffer(length: int) -> None:
    buffer = torch.randn(4, length, generator=torch.Generator().manual_seed(0))
    close(gram_matrix([[row] for row in buffer]), buffer.double() @ buffer.double().T)
    halves = [[row[: length // 2], row[length // 2 :]] for row in buffer]
    close(gram_matrix(halves), buffer.double() @ buffer.double().T)


@pytest.mark.parametrize("places", [(0, 0, 1), (0, 2, 1), (2, 1, 0)], ids=("again", "unordered", "backwards"))
def test_rows_of_one_buffer_that_are_not_evenly_spaced(places: tuple[int, ...]) -> None:
    buffer = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    rows = [[buffer[place]] for place in places]
    found = matrix_of(rows) @ matrix_of(rows).T
    close(gram_matrix(rows), found)


@pytest.mark.parametrize("sizes", [(1e25,) * 3, (1e-25,) * 3, (1e25, 1.0, 1e-25), (1e-6, 1e6, 1.0)], ids=str)
def test_squares_may_leave_the_range_of_float32(sizes: tuple[float, ...]) -> None:
    rows = [[part * size for part in row] for row, size in zip(rows_of(), sizes, strict=True)]
    close(gram_matrix(rows), exact(rows))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_element_that_is_not_finite_shows_in_its_row(value: float) -> None:
    rows = rows_of()
    expected = exact(rows)
    rows[1][1][3, 5] = value
    found = gram_matrix(rows)
    assert not found[1].isfinite().any()
    assert not found[:, 1].isfinite().any()
    assert found[0, 2] == pytest.approx(float(expected[0, 2]), rel=1e-4)


def test_products_are_not_lowered_with_the_models() -> None:
    rows = rows_of()
    torch.set_float32_matmul_precision("medium")
    try:
        close(gram_matrix(rows), exact(rows))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_parts_of_ranks_are_added_up() -> None:
    rows = rows_of()
    mine, others = [row[:3] for row in rows], [row[3:] for row in rows]
    close(gram_matrix(mine, sums=lambda own: own + gram_matrix(others)), exact(rows))


def test_combine_adds_up_with_weights() -> None:
    rows, weights = rows_of(), torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
    before = matrix_of(rows)
    found = [part for part in combine(rows, weights) if part is not None]
    assert [part.shape for part in found] == [torch.Size(shape) for shape in SHAPES]
    torch.testing.assert_close(
        torch.cat([part.flatten() for part in found]).double(), weights @ before, rtol=1e-5, atol=1e-5
    )
    assert torch.equal(matrix_of(rows), before)


def test_combine_takes_none_for_zero() -> None:
    first, second = rows_of(2)
    found = combine([[None, first[1], None], [None, None, second[2]]], torch.tensor([2.0, 3.0]))
    assert found[0] is None
    torch.testing.assert_close(found[1:], [2 * first[1], 3 * second[2]])


def test_combine_rounds_sixteen_bits_once() -> None:
    rows = [[torch.tensor([1.0], dtype=torch.bfloat16)], [torch.tensor([0.003], dtype=torch.bfloat16)]] * 4
    (found,) = combine(rows, torch.ones(8))
    assert found is not None
    assert found.dtype == torch.bfloat16
    assert found == torch.tensor([4 * (1 + float(rows[1][0]))]).bfloat16()


def test_unlike_objectives_are_refused() -> None:
    rows = rows_of(2)
    with pytest.raises(InputError, match="one gradient, or None"):
        gram_matrix([rows[0], rows[1][:-1]])
    with pytest.raises(InputError, match="must have one shape"):
        gram_matrix([rows[0], rows[1][::-1]])
    with pytest.raises(InputError, match="as many weights"):
        combine(rows, torch.ones(3))


SCRIPT = """
import os
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from ava.optimization.gradients.surgery.gram import combine, gram_matrix

distributed.init_process_group("gloo")
line, plane = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (2, 1), mesh_dim_names=("rows", "columns"))
LAYOUTS = [
    ((4, 6), line, [Shard(0)]), ((4, 6), line, [Shard(1)]), ((5, 3, 2), line, [Shard(0)]), ((1, 3), line, [Shard(0)]),
    ((4, 6), line, [Replicate()]), ((3, 2), line, [Partial()]), ((4, 6), plane, [Shard(0), Shard(1)]),
    ((3, 5), None, None),
]

def cut(gradient, mesh, placements):
    if mesh is None or gradient is None:
        return gradient
    if placements[0].is_partial():  # the ranks' summands
        return DTensor.from_local(gradient * (0.25 if distributed.get_rank() == 0 else 0.75), mesh, placements)
    return distribute_tensor(gradient, mesh, placements)

torch.manual_seed(0)
for size in (1.0, 1e25, 1e-25):
    rows = [[size * torch.randn(shape) for shape, _, _ in LAYOUTS] for _ in range(3)]
    rows[1][0] = rows[2][3] = rows[0][7] = None
    shards = [[cut(g, mesh, placements) for g, (_, mesh, placements) in zip(row, LAYOUTS)] for row in rows]
    torch.testing.assert_close(gram_matrix(shards) / size**2, gram_matrix(rows) / size**2, rtol=1e-5, atol=1e-5)
    weights = torch.tensor([1.0, -2.0, 0.5])
    for whole, shard, (_, mesh, _) in zip(combine(rows, weights), combine(shards, weights), LAYOUTS):
        assert (mesh is not None) == isinstance(shard, DTensor)
        found = shard.full_tensor() if mesh is not None else shard
        torch.testing.assert_close(found / size, whole / size, rtol=1e-5, atol=1e-6)
distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""


@pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port
def test_shards_have_the_gram_matrix_of_the_whole(tmp_path: Path) -> None:
    run_on_two_ranks(SCRIPT, tmp_path)

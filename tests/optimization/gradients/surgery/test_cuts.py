"""Parts of a tensor, read from the autograd graph."""

import pytest
import torch

from ava.optimization.gradients.surgery.cuts import cut, overlap


@pytest.mark.parametrize(
    ("take", "part"),
    [
        (lambda x: x[:, 1], (1, 1, 2)),
        (lambda x: x[..., -2], (1, 4, 5)),
        (lambda x: x[-1], (0, 3, 4)),
        (lambda x: x[:, 1:3], (1, 1, 3)),
        (lambda x: x[:, :2], (1, 0, 2)),
        (lambda x: x[:, 3:], (1, 3, 6)),
        (lambda x: x[:, -3:-1], (1, 3, 5)),
        (lambda x: x.narrow(-1, 2, 2), (1, 2, 4)),
        (lambda x: x * 2, None),
    ],
    ids=["index", "from_the_end", "first_dim", "slice", "head", "tail", "negative", "narrow", "all"],
)
def test_what_a_node_takes(take, part):
    taken = take(torch.zeros(4, 6, requires_grad=True) * 1)
    assert cut(taken.grad_fn) == part


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((1, 0, 2), (1, 2, 4), False),
        ((1, 0, 3), (1, 2, 4), True),
        ((0, 0, 1), (1, 2, 4), True),
        (None, (1, 2, 4), True),
    ],
    ids=["beside", "over", "crossing", "all"],
)
def test_whether_parts_overlap(one, other, expected):
    assert overlap(one, other) == overlap(other, one) == expected

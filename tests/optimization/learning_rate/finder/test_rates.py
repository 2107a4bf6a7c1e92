"""All groups move together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.learning_rate.finder.rates import Rates


def parameters(count=3):
    return [nn.Parameter(torch.ones(2)) for _ in range(count)]


def rates_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_groups_keep_their_ratio_to_the_optimizers_own_rate():
    a, b, c = parameters()
    groups = [{"params": [a]}, {"params": [b], "lr": 0.02}, {"params": [c], "lr": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    rates = Rates(optimizer)
    rates.set(3.0)
    assert rates.reference == 0.1
    assert rates_of(optimizer) == pytest.approx([3.0, 0.6, 0.0])
    rates.set(1e-3)
    assert rates_of(optimizer) == pytest.approx([1e-3, 2e-4, 0.0])


@pytest.mark.parametrize("default", [None, "rate", 0.0])
def test_without_a_rate_of_its_own_the_largest_groups_counts(default):
    a, b, _ = parameters()
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.05}], lr=0.1)
    optimizer.defaults["lr"] = default
    Rates(optimizer).set(1.0)
    assert rates_of(optimizer) == pytest.approx([1.0, 0.1])


def test_a_tensor_is_filled_in_place():
    lr = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(parameters(), lr=lr, foreach=False)
    rates = Rates(optimizer)
    for rate in (2.0, 4.0):
        rates.set(rate)
        assert optimizer.param_groups[0]["lr"] is lr
        assert float(lr) == pytest.approx(rate)


def test_a_schedule_that_is_low_now_does_not_count():
    optimizer = torch.optim.SGD(parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.01)
    Rates(optimizer).set(1.0)
    assert rates_of(optimizer) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (
            lambda: get_optimizer("adafactor")(parameters(), lr=None, relative_step=True),
            "chooses its own learning rate",
        ),
        (lambda: torch.optim.SGD(parameters(), lr=0.0), "every group's learning rate is 0"),
    ],
)
def test_what_has_no_rate_is_refused(build, told):
    with pytest.raises(InputError, match=told):
        Rates(build())

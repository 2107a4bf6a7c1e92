"""The loss scale, beside torch.amp.GradScaler."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization.precision.loss_scale import LossScale

FOUND = [0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize(("growth", "backoff", "interval"), [(2.0, 0.5, 3), (4.0, 0.25, 1), (1.5, 0.9, 2)])
def test_the_scales_are_those_of_gradscaler(growth, backoff, interval):
    options = {"growth_factor": growth, "backoff_factor": backoff, "growth_interval": interval}
    ours = LossScale(init_scale=1024.0, **options)
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, **options)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    for found in FOUND:
        theirs.scale(weight.sum()).backward()
        weight.grad[0] = float("inf") if found else 1.0
        theirs.step(optimizer)
        theirs.update()
        optimizer.zero_grad()
        ours.update(torch.tensor(float(found)))
        assert float(ours.scale) == pytest.approx(theirs.get_scale())


def test_it_stays_above_its_floor_and_finite():
    scale = LossScale(init_scale=2.0, growth_interval=1)
    readings = []
    for _ in range(3):
        readings.append(scale.reading(torch.ones(())))
        scale.update(torch.ones(()))
    assert [float(r.scale) for r in readings] == [2.0, 1.0, 1.0]
    assert [bool(r.at_floor) for r in readings] == [False, True, True]
    assert [int(r.overflows) for r in readings] == [1, 1, 1]
    for _ in range(200):
        scale.update(torch.zeros(()))
    assert scale.scale.isfinite()
    assert float(LossScale(init_scale=0.25).floor) == 0.25


def test_unscaling_is_exact_and_counts_what_is_too_small():
    parameters = [
        torch.nn.Parameter(torch.zeros(4)),
        torch.nn.Parameter(torch.zeros(2)),
        torch.nn.Parameter(torch.zeros(1)),
    ]
    parameters[0].grad = torch.tensor([0.0, 2.0**-15, -(2.0**-14), 3.0])
    parameters[1].grad = torch.tensor([-(2.0**-20), 0.0])
    before = [None if p.grad is None else p.grad.clone() for p in parameters]
    scale = LossScale(init_scale=2.0**12)
    scale.unscale_(parameters, count_underflow=True)
    assert torch.equal(parameters[0].grad, before[0] / 2**12)
    assert torch.equal(parameters[1].grad, before[1] / 2**12)
    assert float(scale.reading(torch.zeros(())).underflow) == pytest.approx(2 / 4)
    scale.unscale_(parameters)
    assert scale.reading(torch.zeros(())).underflow is None


def test_its_state_goes_on_where_it_was():
    first, second = LossScale(growth_interval=4), LossScale(growth_interval=4)
    for found in FOUND[:7]:
        first.update(torch.tensor(float(found)))
    second.load_state_dict(first.state_dict())
    for found in FOUND[7:]:
        first.update(torch.tensor(float(found)))
        second.update(torch.tensor(float(found)))
        assert torch.equal(first.scale, second.scale)
    assert first.state_dict() == second.state_dict()


@pytest.mark.parametrize(
    "option",
    [
        {"init_scale": 0.0},
        {"init_scale": 1e39},
        {"growth_factor": 1.0},
        {"backoff_factor": 1.0},
        {"growth_interval": 0},
    ],
    ids=str,
)
def test_an_impossible_option_is_refused(option):
    with pytest.raises(InputError, match=next(iter(option))):
        LossScale(**option)

"""AGMOHD's `lr_scheduler`: applied by the optimizer or by what `get_agmohd_schedule` makes, never by both."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import AGMOHD, get_agmohd_schedule


def optimizer_with(scheduler, **options):
    p = nn.Parameter(torch.zeros(4))
    q = nn.Parameter(torch.zeros(4))
    groups = [{"params": [p]}, {"params": [q], "lr": 2e-3}]
    length = {} if scheduler == "none" else {"schedule_steps": 10}
    return AGMOHD(groups, lr=1e-3, lr_scheduler=scheduler, **length, **options)


def step(optimizer):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.ones(4)
    optimizer.step()
    return optimizer.get_training_stats()["lr"]


EXPECTED = {
    "none": [1.0] * 6,
    "cyclical": [0.25, 0.4, 0.55, 0.7, 0.85, 1.0],
    "cosine": [(1 + torch.cos(torch.tensor(torch.pi * k / 10)).item()) / 2 for k in range(6)],
    "step": [1.0] * 6,
}


@pytest.mark.parametrize("scheduler", EXPECTED)
def test_the_optimizer_applies_its_option_itself(scheduler):
    optimizer = optimizer_with(scheduler)
    rates = [step(optimizer) for _ in range(6)]
    assert rates == pytest.approx([1e-3 * factor for factor in EXPECTED[scheduler]])
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 2e-3]


@pytest.mark.parametrize("scheduler", EXPECTED)
def test_a_scheduler_applies_it_alone(scheduler):
    optimizer = optimizer_with(scheduler)
    schedule = get_agmohd_schedule(optimizer)
    assert isinstance(schedule, torch.optim.lr_scheduler.LRScheduler)
    rates = []
    for _ in range(6):
        rates.append(step(optimizer))
        schedule.step()
    assert rates == pytest.approx([1e-3 * factor for factor in EXPECTED[scheduler]])
    assert schedule.get_last_lr()[1] == pytest.approx(2 * schedule.get_last_lr()[0])


@pytest.mark.parametrize(
    ("scheduler", "total", "warmup", "expected"),
    [
        ("cosine", 8, 0, [1.0, 0.8535533, 0.5, 0.1464466, 0.0, 0.0]),
        ("cosine", 12, 4, [0.0, 0.5, 1.0, 0.8535533, 0.5, 0.1464466]),
        ("step", 20, 0, [1.0, 1.0, 1.0, 0.1, 0.1, 0.1]),
        ("none", 20, 4, [0.0, 0.5, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_a_length_and_a_warmup(scheduler, total, warmup, expected):
    optimizer = optimizer_with(scheduler)
    schedule = get_agmohd_schedule(optimizer, total, warmup)
    factors = []
    for number in range(12):
        if number % 2 == 0:
            factors.append(schedule.get_last_lr()[0] / 1e-3)
        step(optimizer)
        schedule.step()
    assert factors == pytest.approx(expected, abs=1e-6)


def test_it_goes_on_from_its_state():
    optimizer, other = optimizer_with("cosine"), optimizer_with("cosine")
    schedule = get_agmohd_schedule(optimizer, 20)
    for _ in range(7):
        step(optimizer)
        schedule.step()
    again = get_agmohd_schedule(other)
    other.load_state_dict(optimizer.state_dict())
    again.load_state_dict(schedule.state_dict())
    step(other)
    again.step()
    step(optimizer)
    schedule.step()
    assert again.get_last_lr() == schedule.get_last_lr()


@pytest.mark.parametrize("scheduler", ["LinearLR", "OneCycleLR", "CosineAnnealingLR"])
def test_torchs_schedulers_move_it(scheduler):
    optimizer = optimizer_with("none")
    options = {"LinearLR": {}, "OneCycleLR": {"max_lr": 1e-2, "total_steps": 10}, "CosineAnnealingLR": {"T_max": 10}}
    schedule = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options[scheduler])
    for _ in range(5):
        assert step(optimizer) == pytest.approx(schedule.get_last_lr()[0])
        schedule.step()


def test_others_have_no_such_schedule():
    with pytest.raises(InputError, match="AGMOHD"):
        get_agmohd_schedule(torch.optim.AdamW([nn.Parameter(torch.zeros(4))]))
    with pytest.raises(InputError, match="num_warmup_steps"):
        get_agmohd_schedule(optimizer_with("none"), 10, 10)


@pytest.mark.parametrize("scheduler", ["CosineAnnealingLR", "LambdaLR"])
def test_a_schedulers_rate_is_not_multiplied_with_the_options(scheduler):
    optimizer = optimizer_with("cosine")
    options = {"CosineAnnealingLR": {"T_max": 20}, "LambdaLR": {"lr_lambda": lambda k: 1 - k / 20}}
    schedule = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options[scheduler])
    step(optimizer)
    schedule.step()
    with pytest.warns(UserWarning, match="lr_scheduler='cosine' is ignored"):
        assert step(optimizer) == pytest.approx(schedule.get_last_lr()[0])
    for _ in range(5):
        schedule.step()
        assert step(optimizer) == pytest.approx(schedule.get_last_lr()[0])


def test_a_scheduler_that_keeps_the_rate_leaves_it_to_the_option():
    optimizer = optimizer_with("cosine")
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    rates = []
    for _ in range(6):
        rates.append(step(optimizer))
        schedule.step()
    assert rates == pytest.approx([1e-3 * factor for factor in EXPECTED["cosine"]])


@pytest.mark.parametrize("last_epoch", [-5, 10, 1.5])
def test_a_schedule_goes_on_only_from_one(last_epoch):
    optimizer = optimizer_with("cosine")
    with pytest.raises(InputError, match="last_epoch"):
        get_agmohd_schedule(optimizer, 100, 0, last_epoch=last_epoch)
    assert not optimizer.pilot.follows_a_schedule


def test_a_length_of_no_schedule_is_refused():
    with pytest.raises(InputError, match="num_training_steps=20"):
        get_agmohd_schedule(optimizer_with("none"), 20)

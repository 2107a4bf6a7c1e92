"""What AGMOHD and its detector are given is checked; what would do nothing is refused."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import AGMOHD, HindranceDetector


def weight():
    return nn.Parameter(torch.zeros(4))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ((1.0, "x"), "gradient_norm"), ((1.0, torch.ones(2)), "gradient_norm"), ((1.0, -1.0), "gradient_norm"),
        ((1.0, torch.tensor(-1.0)), "gradient_norm"), ((torch.tensor(1j),), "loss"), ((torch.tensor(True),), "loss"),
    ],
    ids=["text", "two", "negative", "negative-tensor", "complex", "bool"],
)  # fmt: skip
def test_what_is_observed_is_one_real_number(arguments, key):
    optimizer = AGMOHD([weight()])
    with pytest.raises(InputError, match=key):
        optimizer.observe(*arguments)


@pytest.mark.parametrize(
    "value", [numpy.float32(0.5), numpy.float64(0.5), numpy.int64(2), torch.tensor([0.5])],
    ids=["float32", "float64", "int64", "tensor"],
)  # fmt: skip
def test_numbers_of_numpy_are_numbers(value):
    p = weight()
    optimizer = AGMOHD([p])
    optimizer.observe(value, value)
    p.grad = torch.ones(4)
    optimizer.step()
    stats = optimizer.get_training_stats()
    assert stats["loss"] == stats["gradient_norm"] == float(value)
    HindranceDetector().judge(value, value)


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d.judge("x"), lambda d: d.judge(torch.ones(2)), lambda d: d.judge(-1.0),
        lambda d: d.judge(1.0, "x"), lambda d: d.judge_update("x"), lambda d: d.judge_update(-1.0),
        lambda d: d.tell(lr="x"), lambda d: d.tell(lr=math.nan), lambda d: d.tell(lr=-1.0),
        lambda d: d.tell(batch_size=0), lambda d: d.tell(batch_size=math.inf),
    ],
    ids=["text", "two", "negative", "loss", "update-text", "update-negative", "rate-text", "rate-nan", "rate-negative",
         "no-samples", "all-samples"],
)  # fmt: skip
def test_what_is_judged_is_one_real_number(call):
    with pytest.raises(InputError):
        call(HindranceDetector())


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.5}, {"schedule_steps": 10}, {"momentum_floor": 0.95},
        {"momentum_floor": 0.6, "betas": (0.5, 0.9)},
        {"momentum_floor": 0.2, "momentum_schedule": "fixed"},
    ],
    ids=["clip_norm", "schedule_steps", "floor-above", "floor-above-own", "floor-fixed"],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        AGMOHD([weight()], **options)
    groups = [{"params": [weight()]}, {"params": [weight()], "momentum_floor": 0.95}]
    with pytest.raises(InputError, match="momentum_floor"):
        AGMOHD(groups)


@pytest.mark.parametrize("options", [{"responses": []}, {"responses": ["skip"]}, {"detectors": ["explosion"]}], ids=str)
def test_lists_are_lists(options):
    p = weight()
    p.grad = torch.ones(4)
    optimizer = AGMOHD([p], **options)
    optimizer.step()
    optimizer.add_param_group({"params": [weight()]})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("lr", [1e-3, torch.tensor(1e-3)], ids=["number", "tensor"])
def test_an_update_is_judged_whatever_the_rate_is(lr):
    p = weight()
    optimizer = AGMOHD([p], lr=lr)
    for step in range(60):
        p.grad = torch.randn(4, generator=torch.Generator().manual_seed(step))
        if step == 50:
            optimizer.param_groups[0]["lr"] = lr * 3000
        elif step > 50:
            optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        if step in (50, 51):
            assert (optimizer.get_training_stats()["rate_factor"] < 1) == (step == 51)


def test_an_update_is_judged_by_every_groups_rate():
    """The larger group's rate is 900 times higher once, and still below the other's."""
    p, q = nn.Parameter(torch.zeros(4000)), weight()
    optimizer = AGMOHD([{"params": [p], "lr": 1e-5}, {"params": [q], "lr": 1e-2}], weight_decay=0.0)
    for step in range(52):
        before = torch.cat([p.detach(), q.detach()])
        p.grad, q.grad = torch.randn(4004, generator=torch.Generator().manual_seed(step)).split([4000, 4])
        optimizer.param_groups[0]["lr"] = 9e-3 if step == 50 else 1e-5
        optimizer.step()
        moved = (torch.cat([p.detach(), q.detach()]) - before).norm().item()
        assert optimizer.get_training_stats()["update_norm"] == pytest.approx(moved, rel=1e-4)
    assert optimizer.get_training_stats()["rate_factor"] < 0.2


def test_an_empty_group_is_no_hindrance():
    p = weight()
    p.grad = torch.ones(4)
    optimizer = AGMOHD([{"params": []}, {"params": [p]}])
    optimizer.step()
    assert p.any()
    assert optimizer.get_training_stats()["update_norm"] > 0


def test_a_step_without_gradients_is_none():
    p = weight()
    optimizer = AGMOHD([p])
    optimizer.step()
    optimizer.observe(3.0)
    optimizer.step()
    assert optimizer.get_training_stats()["step"] == 0
    p.grad = torch.ones(4)
    optimizer.step()
    stats = optimizer.get_training_stats()
    assert stats["step"] == 1
    assert math.isnan(stats["loss"])


def test_a_refused_group_stays_outside():
    p, q = weight(), weight()
    optimizer = AGMOHD([p])
    with pytest.raises(InputError, match="hindrance_threshold"):
        optimizer.add_param_group({"params": [q], "hindrance_threshold": 0.5})
    p.grad, q.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    assert not q.any()
    optimizer.add_param_group({"params": [q]})
    optimizer.step()
    assert q.any()


@pytest.mark.parametrize(
    ("saved", "own", "match"),
    [
        ({"hindrance_threshold": 0.5}, {}, "hindrance_threshold"),
        ({"responses": ("slow",)}, {}, "responses"),
        ({"detectors": ("explosion",)}, {"detectors": ("loss_spike",)}, "detectors"),
        ({"lr_scheduler": "step"}, {"lr_scheduler": "cosine"}, "lr_scheduler"),
    ],
    ids=["threshold", "responses", "as-many-detectors", "scheduler"],
)
def test_the_state_of_another_configuration_is_refused_before_anything_changes(saved, own, match):
    p, q = weight(), weight()
    theirs, ours = AGMOHD([p], lr=0.5, **saved), AGMOHD([q], **own)
    p.grad = torch.ones(4)
    theirs.step()
    with pytest.raises(InputError, match=match):
        ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["lr"] == 1e-3
    assert not ours.state


def test_the_names_of_what_is_remembered_are_compared():
    p, q = weight(), weight()
    theirs, ours = AGMOHD([p]), AGMOHD([q])
    p.grad = torch.ones(4)
    theirs.step()
    state = theirs.state_dict()
    state["param_groups"][0]["pilot_slots"] = state["param_groups"][0]["pilot_slots"].replace("stagnation", "other")
    with pytest.raises(InputError, match="other detectors"):
        ours.load_state_dict(state)

"""What every registered schedule keeps to: a new one is tested by existing."""

from __future__ import annotations

import io
import math
import typing

import pytest
import torch

from ava import registry
from ava.errors import InputError
from ava.optimization import SchedulerFactory, course, list_schedulers
from ava.registry import Length
from tests.optimization.learning_rate.curves import PURE, curve, sgd

each = pytest.mark.parametrize("name", list_schedulers())


def lengths(name):
    """The schedule's own options that are lengths, each as (option, whether it takes several)."""
    for option in registry.scheduler[name].own:
        annotation = registry.scheduler[name].parameters[option][0]
        if annotation == tuple[Length, ...]:
            yield option, True
        elif set(typing.get_args(Length)) <= set(typing.get_args(annotation)):
            yield option, False


LENGTHS = [(name, *option) for name in PURE for option in lengths(name)]


@each
def test_base_rates_keep_their_ratio(name):
    optimizer = sgd()
    rates = curve(optimizer, SchedulerFactory.create(name, optimizer, 10, warmup_steps=3), 15)
    torch.testing.assert_close(rates[:, 0], 10 * rates[:, 1])


@each
def test_the_end_is_held(name):
    optimizer = sgd()
    rates = curve(optimizer, SchedulerFactory.create(name, optimizer, 5), 12)
    assert (rates[5:] == rates[5]).all()


@each
@pytest.mark.parametrize("total", [1, 2, 3, 97])
def test_factors_are_finite_and_bounded(name, total):
    shape = course(name).shape
    factors = [shape(step, total) for step in range(total + 1)]
    assert all(0 <= f.lr <= 1.67 for f in factors)
    assert all(f.momentum is None or 0 <= f.momentum < 1 for f in factors)
    assert all(type(f.lr) is float for f in factors)


@each
def test_it_is_a_function_of_the_step(name):
    shape = course(name).shape
    forwards = [shape(step, 20) for step in range(21)]
    assert [shape(step, 20) for step in range(20, -1, -1)] == forwards[::-1]


@pytest.mark.parametrize(("name", "option", "several"), LENGTHS)
@pytest.mark.parametrize("length", [1, 10**6, 0.001, 1.0])
@pytest.mark.parametrize("total", [1, 2, 30])
def test_lengths_of_any_size(name, option, several, length, total):
    shape = course(name, **{option: [length] if several else length}).shape
    assert all(math.isfinite(shape(step, total).lr) for step in range(total + 1))


@each
def test_a_training_without_an_end(name):
    scheduler = SchedulerFactory.create(name, sgd(), None, warmup_steps=3)
    for _ in range(5):
        scheduler.step()
    assert all(0 <= rate < 1 for rate in scheduler.get_last_lr())


@each
def test_after_a_warmup_it_has_the_steps_that_are_left(name):
    scheduler = SchedulerFactory.create(name, sgd(1.0), 14, warmup_steps=4)
    shape = course(name).shape
    rates = [scheduler.at(step)[0]["lr"] for step in range(15)]
    assert rates[:4] == pytest.approx([shape(0, 10).lr * (k + 1) / 5 for k in range(4)])
    assert rates[4:] == [shape(step, 10).lr for step in range(11)]


@each
@pytest.mark.parametrize("warmup_steps", [10, 11])
def test_warmup_must_leave_a_step(name, warmup_steps):
    with pytest.raises(InputError, match=r"warmup_steps.*total_steps=10"):
        SchedulerFactory.create(name, sgd(), 10, warmup_steps=warmup_steps)


@each
def test_total_must_be_positive(name):
    with pytest.raises(InputError, match="total_steps"):
        SchedulerFactory.create(name, sgd(), 0)


@each
@pytest.mark.parametrize("load_first", [True, False])
def test_resume(name, load_first):
    """The step, and the base rates in the optimizer's file, say everything."""
    optimizer = sgd(momentum=0.9)
    scheduler = SchedulerFactory.create(name, optimizer, 10, warmup_steps=2)
    curve(optimizer, scheduler, 5)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    files = torch.load(file, weights_only=True)
    assert (files[1]["step"], files[1]["total_steps"]) == (5, 10)
    other = sgd(momentum=0.9)
    if load_first:
        other.load_state_dict(files[0])
    resumed = SchedulerFactory.create(name, other, 10, warmup_steps=2)
    other.load_state_dict(files[0])
    resumed.load_state_dict(files[1])
    assert resumed.get_last_lr() == scheduler.get_last_lr() == [g["lr"] for g in other.param_groups]
    assert torch.equal(curve(other, resumed, 8), curve(optimizer, scheduler, 8))


@each
def test_a_tensor_rate_is_filled_in_place(name):
    tensor = torch.tensor(0.5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=tensor)
    scheduler = SchedulerFactory.create(name, optimizer, 10)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is tensor
    assert tensor.item() == pytest.approx(scheduler.get_last_lr()[0])


@pytest.mark.parametrize("name", PURE)
def test_it_can_move_another_hyperparameter(name):
    """By the same numbers."""
    optimizer = sgd(weight_decay=0.1)
    scheduler = SchedulerFactory.create("constant", optimizer, 10, also={"weight_decay": name})
    shape = course(name).shape
    for step in range(10):
        assert optimizer.param_groups[0]["weight_decay"] == pytest.approx(0.1 * shape(step, 10).lr)
        assert optimizer.param_groups[0]["lr"] == 0.1
        scheduler.step()

"""Schedules: pure functions of the step, equal to torch's where torch has them."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch.optim import lr_scheduler

from ava.errors import InputError
from ava.optimization import OneCycleLR, Scheduler, SchedulerFactory, get_scheduler, list_schedulers

TOTAL = 40


def sgd(**options):
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": 0.01}], lr=0.1, **options)


def curve(optimizer, scheduler, steps, key="lr"):
    rows = []
    for _ in range(steps):
        rows.append([group[key] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return torch.tensor(rows, dtype=torch.float64)


TORCH = {
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "linear": ({"end_factor": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL)),
}


@pytest.mark.parametrize("name", TORCH)
def test_equals_torch(name):
    options, build = TORCH[name]
    ours, theirs = sgd(), sgd()
    a = curve(ours, SchedulerFactory.create(name, ours, TOTAL, **options), TOTAL + 5)
    b = curve(theirs, build(theirs), TOTAL + 5)
    torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_cosine_equals_torch():
    """Of one group, for torch's floor is a rate, not a share of it."""
    params = [torch.nn.Parameter(torch.zeros(1))]
    ours, theirs = torch.optim.SGD(params, lr=0.1), torch.optim.SGD(params, lr=0.1)
    a = curve(ours, SchedulerFactory.create("cosine", ours, TOTAL, floor=0.3), TOTAL + 1)
    b = curve(theirs, lr_scheduler.CosineAnnealingLR(theirs, TOTAL, eta_min=0.03), TOTAL + 1)
    torch.testing.assert_close(a, b, rtol=1e-10, atol=0)


@pytest.mark.parametrize("anneal", ["cosine", "linear"])
@pytest.mark.parametrize("pct_start", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("total", [2, 7, TOTAL])
def test_onecycle_equals_torch_given_the_quotient(anneal, pct_start, total):
    if pct_start * total == 1:
        pytest.skip("torch divides by zero when the peak is at step 0")
    ours, theirs = sgd(momentum=0.9), sgd(momentum=0.9)
    options = {"pct_start": pct_start, "div_factor": 20.0, "final_div_factor": 1e4, "anneal": anneal}
    scheduler = SchedulerFactory.create("onecycle", ours, total, **options)
    reference = lr_scheduler.OneCycleLR(
        theirs, max_lr=[0.1, 0.01], total_steps=total, pct_start=pct_start, div_factor=20.0,
        final_div_factor=1e4 / 20.0, anneal_strategy="cos" if anneal == "cosine" else "linear",
    )  # fmt: skip
    for step in range(total):
        for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert a["lr"] == pytest.approx(b["lr"], rel=1e-9)
            assert a["momentum"] == pytest.approx(b["momentum"], rel=1e-9)
        ours.step()
        theirs.step()
        if step + 1 < total:
            scheduler.step()
            reference.step()


def test_onecycle_ends():
    """The guide's rule: the first rate is peak / div_factor, the last peak / final_div_factor."""
    onecycle = get_scheduler("onecycle")
    rates = [onecycle(step, 100, div_factor=25.0, final_div_factor=1e4).lr for step in range(100)]
    assert rates[0] == pytest.approx(1 / 25)
    assert max(rates) == rates[29] == pytest.approx(1.0)
    assert rates[99] == pytest.approx(1e-4)
    momenta = [onecycle(step, 100).momentum for step in range(100)]
    assert (momenta[0], min(momenta), momenta[99]) == pytest.approx((0.95, 0.85, 0.95))


def test_onecycle_moves_the_first_beta():
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3, betas=(0.9, 0.98))
    scheduler = SchedulerFactory.create("onecycle", adamw, 10)
    assert adamw.param_groups[0]["betas"] == (0.95, 0.98)
    for _ in range(2):
        scheduler.step()
    assert adamw.param_groups[0]["betas"] == (pytest.approx(0.85), 0.98)


@pytest.mark.parametrize("optimizer", [sgd, lambda: torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))])])
def test_onecycle_without_momentum(optimizer):
    optimizer = optimizer()
    before = {k: v for k, v in optimizer.param_groups[0].items() if k != "lr"}
    SchedulerFactory.create("onecycle", optimizer, 10).step()
    after = optimizer.param_groups[0]
    assert all(after[key] == value for key, value in before.items() if key != "params")


def test_cycle_momentum_can_be_left_out():
    assert get_scheduler("onecycle")(3, 10, cycle_momentum=False).momentum is None


GOLDEN = {
    ("constant", 0): [1, 1, 1, 1, 1, 1, 1],
    ("constant", 2): [1 / 3, 2 / 3, 1, 1, 1, 1, 1],
    ("linear", 0): [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0],
    ("linear", 2): [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0],
    ("cosine", 0): [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)],
    ("cosine", 2): [1 / 3, 2 / 3, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2, 0],
    ("onecycle", 0): [
        0.04, 1.0, 0.853568, 0.500050, 0.146532, 0.0001, 0.0001,
    ],
    ("onecycle", 2): [0.04 / 3, 0.08 / 3, 0.04, 1.0, 0.500050, 0.0001, 0.0001],
}  # fmt: skip


@pytest.mark.parametrize(("name", "warmup_steps"), GOLDEN)
def test_golden_table(name, warmup_steps):
    """Six steps and the end, by hand."""
    pct = {"pct_start": 2 / (6 - warmup_steps)} if name == "onecycle" else {}
    shape = get_scheduler(name)
    values = [shape(step, 6, warmup_steps=warmup_steps, **pct).lr for step in range(7)]
    assert values == pytest.approx(GOLDEN[name, warmup_steps], abs=1e-6)


@pytest.mark.parametrize("name", list_schedulers())
class TestEverySchedule:
    def test_base_rates_keep_their_ratio(self, name):
        optimizer = sgd()
        rates = curve(optimizer, SchedulerFactory.create(name, optimizer, 10, warmup_steps=3), 15)
        torch.testing.assert_close(rates[:, 0], 10 * rates[:, 1])

    def test_the_end_is_held(self, name):
        optimizer = sgd()
        rates = curve(optimizer, SchedulerFactory.create(name, optimizer, 5), 12)
        assert (rates[5:] == rates[5]).all()

    @pytest.mark.parametrize("total", [1, 2])
    def test_shortest_trainings(self, name, total):
        optimizer = sgd(momentum=0.9)
        assert curve(optimizer, SchedulerFactory.create(name, optimizer, total), total + 1).isfinite().all()

    def test_both_ways_to_warm_up_are_one(self, name):
        shape = get_scheduler(name)
        own, outer = sgd(), sgd()
        a = curve(own, Scheduler(own, functools.partial(shape, warmup_steps=4), 12), 14)
        b = curve(outer, Scheduler(outer, shape, 12, warmup_steps=4), 14)
        assert torch.equal(a, b)

    @pytest.mark.parametrize("warmup_steps", [10, 11])
    def test_warmup_must_leave_a_step(self, name, warmup_steps):
        with pytest.raises(InputError, match=r"warmup_steps.*total_steps=10"):
            SchedulerFactory.create(name, sgd(), 10, warmup_steps=warmup_steps)

    def test_total_must_be_positive(self, name):
        with pytest.raises(InputError, match="total_steps"):
            SchedulerFactory.create(name, sgd(), 0)

    @pytest.mark.parametrize("load_first", [True, False])
    def test_resume(self, name, load_first):
        """The step, and the base rates in the optimizer's file, say everything."""
        optimizer = sgd(momentum=0.9)
        scheduler = SchedulerFactory.create(name, optimizer, 10, warmup_steps=2)
        whole = curve(optimizer, scheduler, 5)
        files = optimizer.state_dict(), scheduler.state_dict()
        assert files[1] == {"step": 5}
        other = sgd(momentum=0.9)
        if load_first:
            other.load_state_dict(files[0])
        resumed = SchedulerFactory.create(name, other, 10, warmup_steps=2)
        other.load_state_dict(files[0])
        resumed.load_state_dict(files[1])
        assert resumed.get_last_lr() == scheduler.get_last_lr() == [g["lr"] for g in other.param_groups]
        assert torch.equal(curve(other, resumed, 8), curve(optimizer, scheduler, 8))
        assert len(whole) == 5

    def test_tensor_rate_is_filled_in_place(self, name):
        tensor = torch.tensor(0.5)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=tensor)
        scheduler = SchedulerFactory.create(name, optimizer, 10)
        scheduler.step()
        assert optimizer.param_groups[0]["lr"] is tensor
        assert tensor.item() == pytest.approx(scheduler.get_last_lr()[0])


def test_a_late_group_gets_its_own_base():
    optimizer = sgd()
    scheduler = SchedulerFactory.create("linear", optimizer, 4)
    scheduler.step()
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 8.0})
    scheduler.step()
    assert scheduler.get_last_lr() == [0.05, 0.005, 4.0]


@pytest.mark.parametrize("state", [{}, {"step": -1}, {"step": "3"}])
def test_a_foreign_state_is_refused(state):
    with pytest.raises(InputError, match="step"):
        SchedulerFactory.create("constant", sgd(), 5).load_state_dict(state)


def test_one_cycle_lr_of_the_guide():
    optimizer = sgd()
    scheduler = OneCycleLR(
        optimizer=optimizer, max_lr=1e-3, total_steps=100, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
    )
    rates = curve(optimizer, scheduler, 100)[:, 0]
    assert (rates[0].item(), rates.max().item(), rates[-1].item()) == pytest.approx((4e-5, 1e-3, 1e-7))

"""The classes with torch's arguments equal torch's, step for step."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch.optim import lr_scheduler

from ava.errors import InputError
from ava.optimization import (
    AdvancedWarmupScheduler,
    CosineAnnealingWarmRestarts,
    Lion,
    OneCycleLR,
    PolynomialDecayLR,
    WarmupConfig,
)  # fmt: skip
from tests.optimization.learning_rate.curves import curve, sgd

TOTAL = 40
CYCLE = {"total_steps": TOTAL, "pct_start": 0.3, "div_factor": 20.0}
RISE = WarmupConfig("cosine", 12, 1e-4, 0.2)
PAIRS = {
    "onecycle": (
        lambda o: OneCycleLR(o, 0.3, **CYCLE, final_div_factor=1e4),
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, **CYCLE, final_div_factor=500.0),
    ),
    "onecycle of groups": (
        lambda o: OneCycleLR(o, [0.3, 0.02], epochs=5, steps_per_epoch=8, anneal_strategy="linear",
                             base_momentum=0.7, max_momentum=0.8),
        lambda o: lr_scheduler.OneCycleLR(o, [0.3, 0.02], epochs=5, steps_per_epoch=8, anneal_strategy="linear",
                                          base_momentum=0.7, max_momentum=0.8, final_div_factor=1e4 / 25),
    ),
    "onecycle without momentum": (
        lambda o: OneCycleLR(o, 0.3, **CYCLE, cycle_momentum=False),
        lambda o: lr_scheduler.OneCycleLR(o, 0.3, **CYCLE, cycle_momentum=False, final_div_factor=500.0),
    ),
    "restarts": (
        lambda o: CosineAnnealingWarmRestarts(o, 7, eta_min=1e-3),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, eta_min=1e-3),
    ),
    "restarts that grow": (
        lambda o: CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=1e-3),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=1e-3),
    ),
    "polynomial": (
        lambda o: PolynomialDecayLR(o, TOTAL - 9, 3.0),
        lambda o: lr_scheduler.PolynomialLR(o, TOTAL - 9, 3.0),
    ),
    "line to a rate": (
        lambda o: PolynomialDecayLR(o, total_steps=TOTAL, end_lr=1e-3),
        lambda o: lr_scheduler.LambdaLR(o, [
            lambda k: 1 - (1 - 1e-3 / 0.1) * k / TOTAL, lambda k: 1 - (1 - 1e-3 / 0.01) * k / TOTAL,
        ]),
    ),
    "warmup": (
        lambda o: AdvancedWarmupScheduler(o, WarmupConfig("linear", 10, initial_lr=0.025)),
        lambda o: lr_scheduler.LinearLR(o, start_factor=0.25, total_iters=10),
    ),
}  # fmt: skip
OURS = {name: pair[0] for name, pair in PAIRS.items()} | {"cosine warmup": lambda o: AdvancedWarmupScheduler(o, RISE)}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_equals_torch(pair):
    """Rates and momenta of two groups of different rates."""
    (ours, theirs) = (sgd(momentum=0.9) for _ in range(2))
    (a, b) = (build(optimizer) for build, optimizer in zip(pair, (ours, theirs), strict=True))
    for step in range(TOTAL):
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-9)
        assert a.last_epoch == b.last_epoch == step
        for x, y in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert (x["lr"], x["momentum"]) == pytest.approx((y["lr"], y["momentum"]), rel=1e-9)
        ours.step()
        theirs.step()
        if step + 1 < TOTAL:  # beyond that torch's OneCycleLR raises
            a.step()
            b.step()


@pytest.mark.parametrize("build", OURS.values(), ids=OURS)
@pytest.mark.parametrize("load_first", [True, False])
def test_resume_in_the_middle(build, load_first):
    optimizer = sgd(momentum=0.9)
    scheduler = build(optimizer)
    curve(optimizer, scheduler, 11)
    file = io.BytesIO()
    torch.save((optimizer.state_dict(), scheduler.state_dict()), file)
    file.seek(0)
    saved_optimizer, saved = torch.load(file, weights_only=True)
    other = sgd(momentum=0.9)
    if load_first:
        other.load_state_dict(saved_optimizer)
    resumed = build(other)
    resumed.load_state_dict(saved)
    other.load_state_dict(saved_optimizer)
    assert resumed.get_last_lr() == scheduler.get_last_lr() == [group["lr"] for group in other.param_groups]
    assert torch.equal(curve(other, resumed, 20), curve(optimizer, scheduler, 20))
    assert other.param_groups[0]["momentum"] == optimizer.param_groups[0]["momentum"]


@pytest.mark.parametrize("build", OURS.values(), ids=OURS)
def test_a_state_without_its_optimizers_sets_the_rates(build):
    optimizer, other = sgd(), sgd()
    scheduler, resumed = build(optimizer), build(other)
    curve(optimizer, scheduler, 11)
    resumed.load_state_dict(scheduler.state_dict())
    assert [group["lr"] for group in other.param_groups] == scheduler.get_last_lr()


@pytest.mark.parametrize("build", [
    lambda o, last: CosineAnnealingWarmRestarts(o, 30, eta_min=1e-3, last_epoch=last),
    lambda o, last: PolynomialDecayLR(o, 30, 2.0, last_epoch=last),
    lambda o, last: OneCycleLR(o, 0.3, 30, last_epoch=last),
    lambda o, last: AdvancedWarmupScheduler(o, WarmupConfig(warmup_steps=20, target_lr=0.2), last_epoch=last),
])  # fmt: skip
def test_last_epoch_goes_on_as_in_torch(build):
    optimizer = sgd()
    rates = curve(optimizer, build(optimizer, -1), 25)
    late = build(optimizer, 9)
    assert late.get_last_lr() == pytest.approx(rates[10].tolist())
    torch.testing.assert_close(curve(optimizer, late, 15), rates[10:])
    with pytest.raises(InputError, match=r"last_epoch=9.*initial_lr"):
        build(sgd(), 9)


def test_epochs_and_their_fractions_as_in_torch():
    ours, theirs = sgd(), sgd()
    a = CosineAnnealingWarmRestarts(ours, 3, 2, 1e-3)
    b = lr_scheduler.CosineAnnealingWarmRestarts(theirs, 3, 2, 1e-3)
    optimizer_steps = [k / 4 for k in range(1, 90)] + [None, None, 1.5, None, 0, None]
    for epoch in optimizer_steps:
        a.step(epoch)
        b.step(epoch)
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-9)
        assert a.last_epoch == b.last_epoch


class TestOneCycle:
    def test_of_the_guide(self):
        optimizer = Lion([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
        scheduler = OneCycleLR(
            optimizer=optimizer, max_lr=1e-3, total_steps=10_000, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
        )
        rates = []
        for _ in range(10_000):
            rates.append(scheduler.get_last_lr()[0])
            scheduler.step()
        assert (rates[0], max(rates), rates[2999], rates[-1]) == pytest.approx((4e-5, 1e-3, 1e-3, 1e-7))
        assert optimizer.param_groups[0]["lr"] == rates[-1], "the last rate is kept"

    @pytest.mark.parametrize("options", [{}, {"pct_start": 0.3}])
    def test_short_calls_of_the_guide(self, options):
        optimizer = Lion([torch.nn.Parameter(torch.zeros(1))], lr=1e-4, weight_decay=0.1)
        assert OneCycleLR(optimizer, max_lr=1e-3, total_steps=100, **options).get_last_lr() == pytest.approx([4e-5])

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({}, r"total_steps=null: must be given, or both epochs and steps_per_epoch"),
            ({"epochs": 3}, r"total_steps=null"),
            ({"epochs": 3, "steps_per_epoch": 0}, r"steps_per_epoch=0.*above 0"),
            ({"total_steps": 0}, r"total_steps=0.*above 0"),
            ({"total_steps": 9.5}, r"total_steps=9\.5.*whole"),
            ({"total_steps": 9, "max_lr": [0.1]}, r"max_lr=.*one rate, or 2"),
            ({"total_steps": 9, "max_lr": [0.1, -0.1]}, r"max_lr=-0\.1.*at least 0"),
            ({"total_steps": 9, "max_lr": float("nan")}, r"max_lr=nan"),
            ({"total_steps": 9, "pct_start": 1.5}, r"pct_start=1\.5.*at most 1"),
            ({"total_steps": 9, "anneal_strategy": "cosine"}, r"anneal_strategy=cosine.*'cos'"),
            ({"total_steps": 9, "div_factor": 0}, r"div_factor=0.*above 0"),
            ({"total_steps": 9, "final_div_factor": -1}, r"final_div_factor=-1.*above 0"),
            ({"total_steps": 9, "max_momentum": 1}, r"max_momentum=1.*below 1"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options, says):
        with pytest.raises(InputError, match=says):
            OneCycleLR(sgd(), **{"max_lr": 0.1, **options})


class TestRestarts:
    def test_of_the_guide(self):
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=2e-4)
        scheduler = CosineAnnealingWarmRestarts(optimizer, T_0=1000, T_mult=2, eta_min=1e-6)
        rates = []
        for _ in range(3001):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
        assert rates[0] == rates[1000] == rates[3000] == 2e-4
        assert (rates[500], rates[2000]) == pytest.approx((1.005e-4, 1.005e-4))
        assert 1e-6 < min(rates) < 1.01e-6

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"T_0": 0}, r"T_0=0"), ({"T_0": 2.5}, r"T_0=2\.5"), ({"T_mult": 0}, r"T_mult=0"),
            ({"T_mult": 1.5}, r"T_mult=1\.5"), ({"eta_min": -1}, r"eta_min=-1"), ({"last_epoch": -2}, r"last_epoch=-2"),
            ({"last_epoch": 0.5}, r"last_epoch=0\.5"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused(self, options, says):
        with pytest.raises(InputError, match=says):
            CosineAnnealingWarmRestarts(sgd(), **{"T_0": 5, **options})

    @pytest.mark.parametrize("epoch", [-1, math.nan, math.inf, "2"])
    def test_no_such_place(self, epoch):
        scheduler = CosineAnnealingWarmRestarts(sgd(), 5)
        with pytest.raises(InputError, match="epoch="):
            scheduler.step(epoch)
        assert scheduler.last_epoch == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"total_steps": 0}, r"total_steps=0"), ({"power": 0}, r"power=0"), ({"end_lr": -1e-3}, r"end_lr=-0\.001"),
        ({"end_lr": "low"}, r"end_lr=low"),
    ],
)  # fmt: skip
def test_polynomial_refuses_what_cannot_be(options, says):
    with pytest.raises(InputError, match=says):
        PolynomialDecayLR(sgd(), **{"total_steps": 5, **options})


class TestAll:
    """What the classes have in common."""

    @pytest.mark.parametrize("build", OURS.values(), ids=OURS)
    def test_a_tensor_rate_is_filled_in_place(self, build):
        tensor = torch.tensor(0.1)
        optimizer = sgd(tensor, tensor)
        scheduler = build(optimizer)
        scheduler.step()
        assert all(group["lr"] is tensor for group in optimizer.param_groups)
        assert tensor.item() == pytest.approx(scheduler.get_last_lr()[1])

    def test_a_late_group_gets_its_own_base(self):
        optimizer = sgd()
        scheduler = PolynomialDecayLR(optimizer, 4)
        scheduler.step()
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 8.0})
        scheduler.step()
        assert scheduler.get_last_lr() == [0.05, 0.005, 4.0]

    @pytest.mark.parametrize("state", [{}, {"last_epoch": 3, "base_lrs": [0.1, 0.01], "T_cur": 3}])
    def test_a_foreign_state_is_refused(self, state):
        with pytest.raises(InputError, match="CosineAnnealingWarmRestarts gives"):
            CosineAnnealingWarmRestarts(sgd(), 5).load_state_dict(state)

    def test_a_state_of_other_groups_is_refused(self):
        with pytest.raises(InputError, match=r"base_lrs=.*2 rates"):
            CosineAnnealingWarmRestarts(sgd(), 5).load_state_dict({"place": 1, "base_lrs": [0.1]})

    def test_what_is_no_optimizer_is_refused(self):
        with pytest.raises(InputError, match="optimizer=Linear"):
            PolynomialDecayLR(torch.nn.Linear(1, 1), 5)

    def test_a_rate_that_the_optimizer_chooses_cannot_be_moved(self):
        optimizer = sgd()
        optimizer.param_groups[1]["lr"] = None
        with pytest.raises(InputError, match=r"param_groups\[1\]\.lr=null"):
            PolynomialDecayLR(optimizer, 5)

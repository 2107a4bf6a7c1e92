"""Schedules equal torch's and transformers', where those have them."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from ava.optimization import SchedulerFactory
from tests.optimization.learning_rate.curves import curve, sgd

TOTAL = 40
TORCH = [
    ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    ("linear", {"end_factor": 0.2}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.2, TOTAL)),
    ("polynomial", {"power": 2.0}, lambda o: lr_scheduler.PolynomialLR(o, TOTAL, 2.0)),
    ("polynomial", {"power": 0.9}, lambda o: lr_scheduler.PolynomialLR(o, TOTAL, 0.9)),
    ("step", {"step_size": 7, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 7, 0.3)),
    ("step", {"step_size": 0.25}, lambda o: lr_scheduler.StepLR(o, TOTAL // 4)),
    ("multistep", {"milestones": (5, 0.5)}, lambda o: lr_scheduler.MultiStepLR(o, [5, TOTAL // 2])),
    ("exponential", {"gamma": 0.9}, lambda o: lr_scheduler.ExponentialLR(o, 0.9)),
    ("exponential", {"end_factor": 0.01}, lambda o: lr_scheduler.ExponentialLR(o, 0.01 ** (1 / TOTAL))),
    ("cosine_restarts", {"T_0": 7}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7)),
    ("cosine_restarts", {"T_0": 3, "T_mult": 3}, lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 3)),
]


@pytest.mark.parametrize(("name", "options", "build"), TORCH)
def test_equals_torch(name, options, build):
    ours, theirs = sgd(), sgd()
    a = curve(ours, SchedulerFactory.create(name, ours, TOTAL, **options), TOTAL)
    b = curve(theirs, build(theirs), TOTAL)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "build"),
    [
        ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=0.03)),
        ("cosine_restarts", {"T_0": 0.3, "T_mult": 2},
         lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 12, 2, eta_min=0.03)),
    ],
)  # fmt: skip
def test_equals_torch_with_a_floor(name, options, build):
    """Of groups of one rate, for torch's floor is a rate, not a share of it."""
    ours, theirs = sgd(second=0.1), sgd(second=0.1)
    a = curve(ours, SchedulerFactory.create(name, ours, TOTAL, floor=0.3, **options), TOTAL + 1)
    b = curve(theirs, build(theirs), TOTAL + 1)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=0)


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
    compare(ours, scheduler, theirs, reference, total)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(4, None), (3, 6), (8, 1)])
def test_triangular_equals_torch(mode, up, down):
    ours, theirs = sgd(momentum=0.9), sgd(momentum=0.9)
    scheduler = SchedulerFactory.create(
        "triangular", ours, TOTAL, step_size_up=up, step_size_down=down, mode=mode, gamma=0.95, base_factor=0.2
    )
    reference = lr_scheduler.CyclicLR(
        theirs, base_lr=[0.02, 0.002], max_lr=[0.1, 0.01], step_size_up=up, step_size_down=down, mode=mode, gamma=0.95
    )
    compare(ours, scheduler, theirs, reference, TOTAL)


def compare(ours, scheduler, theirs, reference, total):
    """Rates and momenta agree at every step."""
    for step in range(total):
        for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
            assert a["lr"] == pytest.approx(b["lr"], rel=1e-9)
            assert a["momentum"] == pytest.approx(b["momentum"], rel=1e-9)
        ours.step()
        theirs.step()
        if step + 1 < total:
            scheduler.step()
            reference.step()


W = 10
WSD = {"num_warmup_steps": W, "num_decay_steps": 8, "num_training_steps": TOTAL, "min_lr_ratio": 0.1}
HF = [
    ("constant", {}, "get_constant_schedule_with_warmup", {"num_warmup_steps": W}),
    ("linear", {}, "get_linear_schedule_with_warmup", {"num_warmup_steps": W, "num_training_steps": TOTAL}),
    ("cosine", {}, "get_cosine_schedule_with_warmup", {"num_warmup_steps": W, "num_training_steps": TOTAL}),
    ("cosine_restarts", {"T_0": 1 / 3}, "get_cosine_with_hard_restarts_schedule_with_warmup",
     {"num_warmup_steps": W, "num_training_steps": TOTAL, "num_cycles": 3}),
    ("polynomial", {"power": 3.0, "floor": 0.05}, "get_polynomial_decay_schedule_with_warmup",
     {"num_warmup_steps": W, "num_training_steps": TOTAL, "power": 3.0, "lr_end": 0.005}),
    ("inverse_sqrt", {"timescale": W}, "get_inverse_sqrt_schedule", {"num_warmup_steps": W}),
    ("inverse_sqrt", {"timescale": 25}, "get_inverse_sqrt_schedule", {"num_warmup_steps": W, "timescale": 25}),
    ("wsd", {"decay_steps": 8, "floor": 0.1}, "get_wsd_schedule", {**WSD, "decay_type": "linear"}),
    ("wsd", {"decay_steps": 8, "floor": 0.1, "decay": "cosine"}, "get_wsd_schedule", {**WSD, "decay_type": "cosine"}),
    ("wsd", {"decay_steps": 8, "floor": 0.1, "decay": "sqrt"}, "get_wsd_schedule", {**WSD, "decay_type": "1-sqrt"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "theirs_name", "theirs_options"), HF)
def test_equals_transformers(name, options, theirs_name, theirs_options):
    """Whose warmups begin at 0, or at wsd's floor. Groups of one rate: the polynomial ends on a rate, not a share."""
    transformers = pytest.importorskip("transformers")
    ours, theirs = sgd(second=0.1), sgd(second=0.1)
    start = options.get("floor", 0) if name == "wsd" else 0
    scheduler = SchedulerFactory.create(name, ours, TOTAL, warmup_steps=W, warmup_start=start, **options)
    reference = getattr(transformers, theirs_name)(theirs, **theirs_options)
    a, b = curve(ours, scheduler, TOTAL + 1), curve(theirs, reference, TOTAL + 1)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-15)

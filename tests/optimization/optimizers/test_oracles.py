"""Each optimizer against an independent implementation, in float64, over 60 steps."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import Lion, parameters, set_gradients, two_groups

ENGINES = ["auto", "reference"]


def train_both(ours, mine, theirs, yours, steps=60):
    """Step both over a moving learning rate; the largest difference of any parameter at any step."""
    worst, bases = 0.0, [group["lr"] for group in ours.param_groups]
    for step in range(steps):
        for optimizer, params in ((ours, mine), (theirs, yours)):
            set_gradients(params, step)
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * (1 + math.sin(step))
            optimizer.step()
        worst = max(worst, *((a - b).abs().max().item() for a, b in zip(mine, yours, strict=True)))
    return worst


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
def test_adamw_equals_torch(engine, weight_decay, betas):
    mine, yours = parameters(), parameters()
    second = {"lr": 3e-2, "weight_decay": 0.3, "eps": 1e-4}
    options = {"lr": 1e-2, "betas": betas, "weight_decay": weight_decay}
    ours = get_optimizer("adamw")(two_groups(mine, **second), **options, engine=engine)
    theirs = torch.optim.AdamW(two_groups(yours, **second), **options, foreach=False)
    assert train_both(ours, mine, theirs, yours) < 1e-12


SGD_VARIANTS = [
    {"momentum": m, "dampening": d, "weight_decay": w, "nesterov": n}
    for m, d, w, n in itertools.product((0.0, 0.9), (0.0, 0.3), (0.0, 0.1), (False, True))
    if not n or (m > 0 and d == 0)
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("variant", SGD_VARIANTS, ids=str)
def test_sgd_equals_torch(engine, variant):
    mine, yours = parameters(), parameters()
    second = {"lr": 1e-3, "momentum": 0.5, "dampening": 0.0}
    ours = get_optimizer("sgd")(two_groups(mine, **second), lr=1e-2, **variant, engine=engine)
    theirs = torch.optim.SGD(two_groups(yours, **second), lr=1e-2, **variant, foreach=False)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_equals_the_paper(engine, weight_decay):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "betas": (0.9, 0.99), "weight_decay": weight_decay}
    second = {**options, "lr": 3e-3, "weight_decay": 0.3}
    ours = get_optimizer("lion")(two_groups(mine, **second), **options, engine=engine)
    theirs = Lion([{"params": yours[:1], **options}, {"params": yours[1:], **second}])
    assert train_both(ours, mine, theirs, yours) < 1e-12


def test_lion_of_a_zero_gradient_stands_still():
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.zeros(3)
    get_optimizer("lion")([p]).step()
    assert torch.equal(p, torch.ones(3))


def test_dampened_momentum_starts_late_where_a_parameter_does():
    """The first-step rule is each parameter's own."""
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "momentum": 0.9, "dampening": 0.5}
    ours, theirs = get_optimizer("sgd")(mine, **options), torch.optim.SGD(yours, **options)
    for step in range(6):
        for optimizer, params in ((ours, mine), (theirs, yours)):
            set_gradients(params, step)
            if step < 3:
                params[1].grad = None
            optimizer.step()
    for a, b in zip(mine, yours, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)

"""Schedule-Free methods against schedulefree, in float64: while training, and the weights to evaluate."""

from __future__ import annotations

import math

import pytest
import schedulefree
import torch

from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.optimizers.sentence import Hyperparameters, Operands
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES, train_both

PAIRS = {
    "schedule_free_adamw": (schedulefree.AdamWScheduleFree, {"lr": 1e-2, "betas": (0.9, 0.99)}),
    "schedule_free_sgd": (schedulefree.SGDScheduleFree, {"lr": 0.1, "momentum": 0.8}),
}
both = pytest.mark.parametrize("name", PAIRS)


def average(optimizer, p):
    """The weights to evaluate, by the sentence that the optimizer's own sentence names."""
    group = optimizer.param_groups[0]
    matrices, _ = type(optimizer).__dict__["grammar"].sentences(group)
    (stage,) = [word.variants["average"] for word in matrices if "average" in word.variants]
    assert [slot.name for slot in stage.slots] == ["z"]
    t = Operands(None, p=p.detach(), z=optimizer.state[p]["z"])
    stage.rule(t, Hyperparameters(group))
    return t.p


@both
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("variant", [{}, {"warmup_steps": 10}, {"r": 0.5}, {"weight_lr_power": 0.0}], ids=str)
def test_equals_schedulefree(name, engine, weight_decay, variant):
    mine, yours = parameters(), parameters()
    kind, options = PAIRS[name]
    options = {**options, **variant, "weight_decay": weight_decay}
    second = {"lr": 0.3 * options["lr"], "weight_decay": 0.3}
    ours = get_optimizer(name)(two_groups(mine, **second), **options, engine=engine)
    theirs = kind(two_groups(yours, **second), **options, foreach=False)
    theirs.train()
    assert train_both(ours, mine, theirs, yours) < 1e-12
    evaluated = [average(ours, p) for p in mine]
    theirs.eval()
    for x, p in zip(evaluated, yours, strict=True):
        torch.testing.assert_close(x, p.detach(), rtol=0, atol=1e-12)


@both
def test_the_average_is_the_papers(name):
    """By the three sequences of the paper: x averages z by c, and gradients are taken at y between them."""
    params = parameters()
    _, options = PAIRS[name]
    optimizer = get_optimizer(name)(params, **options)
    beta = options.get("momentum") or options["betas"][0]
    x = [p.detach().clone() for p in params]
    for step in range(60):
        set_gradients(params, step)
        optimizer.param_groups[0]["lr"] = options["lr"] * (1.5 + math.sin(step))
        optimizer.step()
        for i, p in enumerate(params):
            state = optimizer.state[p]
            c = state["lr_max"] ** 2 / state["weight_sum"]
            x[i] = (1 - c) * x[i] + c * state["z"]
            torch.testing.assert_close(p.detach(), (1 - beta) * state["z"] + beta * x[i], rtol=0, atol=1e-12)
            torch.testing.assert_close(average(optimizer, p), x[i], rtol=0, atol=1e-11)


@both
@pytest.mark.parametrize("decay", ["decoupled", "cautious"])
def test_decay_moves_both_sequences(name, decay):
    """Decay beside the gradient is the method's own; the cautious one spares what the update moves away from zero."""
    mine, yours = parameters(), parameters()
    _, options = PAIRS[name]
    ours = get_optimizer(name)(mine, **options, weight_decay=0.2, decay=decay)
    theirs = get_optimizer(name)(yours, **options, weight_decay=0.2)
    set_gradients(mine, 0)
    set_gradients(yours, 0)
    start = [p.detach().clone() for p in mine]
    ours.step()
    theirs.step()
    for p, q, y in zip(mine, yours, start, strict=True):
        spared = (p.grad * y <= 0) & (decay == "cautious")
        z, own = ours.state[p]["z"], theirs.state[q]["z"]
        torch.testing.assert_close(z, own + ours.param_groups[0]["lr"] * 0.2 * y * spared, rtol=0, atol=1e-14)


@both
def test_gradients_are_not_taken_at_z(name):
    with pytest.raises(InputError, match="above 0"):
        get_optimizer(name)(parameters(), **({"momentum": 0.0} if name.endswith("sgd") else {"betas": (0.0, 0.999)}))


@both
def test_a_rate_of_zero_moves_nothing(name):
    """The average's weights are then 0 of 0."""
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = get_optimizer(name)(params, lr=0.0)
    set_gradients(params, 0)
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))

"""Evaluation weights that an optimizer keeps itself: Schedule-Free."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients

NAMES = pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_sgd"])


def train(optimizer, params, first, last):
    for step in range(first, last):
        set_gradients(params, step)
        optimizer.step()


@NAMES
@pytest.mark.parametrize("state", ["dense", "bf16", "int8", "factored"])
def test_inside_are_the_averages_and_nothing_else_changes(name, state):
    params = parameters(torch.float32)
    optimizer = get_optimizer(name)(params, lr=0.05, state=state)
    train(optimizer, params, 0, 5)
    beta = 0.9
    own = [p.detach().clone() for p in params]
    before = copy.deepcopy(optimizer.state_dict())
    with optimizer.averaged():
        for p, y in zip(params, own, strict=True):
            torch.testing.assert_close(p.detach(), y + (1 - 1 / beta) * (optimizer.state[p]["z"] - y))
            assert not torch.equal(p, y)
    assert all(torch.equal(p, y) for p, y in zip(params, own, strict=True))
    after = optimizer.state_dict()["state"]
    for index, slots in before["state"].items():
        assert all(torch.equal(value, after[index][key]) for key, value in slots.items())


@pytest.mark.parametrize(("name", "peer"), [("schedule_free_adamw", "AdamWScheduleFree")])
def test_eval_and_train_equal_schedulefree(name, peer):
    peers = pytest.importorskip("schedulefree")
    params, twins = parameters(), parameters()
    ours = get_optimizer(name)(params, lr=0.05)
    theirs = getattr(peers, peer)(twins, lr=0.05, foreach=False)
    theirs.train()
    for step in range(20):
        set_gradients(params, step)
        for p, q in zip(params, twins, strict=True):
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for mode in ("eval", "train"):
        getattr(ours, mode)()
        getattr(theirs, mode)()
        for p, q in zip(params, twins, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


@NAMES
def test_eval_waits_for_train(name):
    params = parameters()
    optimizer = get_optimizer(name)(params)
    train(optimizer, params, 0, 3)
    own = [p.detach().clone() for p in params]
    optimizer.eval()
    optimizer.eval()
    with pytest.raises(InputError, match=r"Call train\(\)"):
        optimizer.step()
    with optimizer.averaged():
        resting = [p.detach().clone() for p in params]
    assert all(torch.equal(p, x) for p, x in zip(params, resting, strict=True))
    optimizer.train()
    optimizer.train()
    assert all(torch.equal(p, y) for p, y in zip(params, own, strict=True))
    optimizer.step()


@NAMES
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_resume_is_bitwise_in_either_mode(name, mode):
    """Trainers of other libraries save between eval() and train()."""
    params, twins = parameters(), parameters()
    optimizer = get_optimizer(name)(params, lr=0.05)
    train(optimizer, params, 0, 4)
    getattr(optimizer, mode)()
    file = io.BytesIO()
    torch.save({"weights": params, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    twin = get_optimizer(name)(twins, lr=0.5)
    with torch.no_grad():
        for q, value in zip(twins, loaded["weights"], strict=True):
            q.copy_(value)
    twin.load_state_dict(loaded["optimizer"])
    for one, ps in ((optimizer, params), (twin, twins)):
        one.train()
        train(one, ps, 4, 8)
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


@NAMES
def test_copies_in_eval_mode_can_train_on(name):
    params = parameters()
    optimizer = get_optimizer(name)(params)
    train(optimizer, params, 0, 3)
    optimizer.eval()
    twins, twin = copy.deepcopy((params, optimizer))
    for one, ps in ((optimizer, params), (twin, twins)):
        one.train()
        train(one, ps, 3, 5)
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


def test_where_both_are_the_same_nothing_happens():
    params = parameters()
    optimizer = get_optimizer("adamw")(params)
    train(optimizer, params, 0, 2)
    own = [p.detach().clone() for p in params]
    optimizer.eval()
    with optimizer.averaged():
        assert all(torch.equal(p, y) for p, y in zip(params, own, strict=True))
    train(optimizer, params, 2, 3)


def test_before_the_first_step_the_averages_are_the_weights():
    params = parameters()
    optimizer = get_optimizer("schedule_free_adamw")(params)
    with optimizer.averaged():
        assert all(torch.equal(p, q) for p, q in zip(params, parameters(), strict=True))
    assert not optimizer.state

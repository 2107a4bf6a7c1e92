"""Sharpness-aware minimisation around any optimizer."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters


def network(*, norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(4, 8), *middle, nn.Tanh(), nn.Linear(8, 3)).double()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 4, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def closure_of(model, optimizer, step, scale=1.0):
    x, y = batch(step)

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y) * scale
        loss.backward()
        return loss

    return closure


class Twin:
    """SAM as its paper's Algorithm 1 has it: two passes around a base optimizer, one operation at a time."""

    def __init__(self, params, base, rho, adaptive):
        self.params, self.base, self.rho, self.adaptive = list(params), base, rho, adaptive

    def step(self, closure):
        loss = closure()
        with torch.no_grad():
            weights = [p.abs() if self.adaptive else torch.ones_like(p) for p in self.params]
            norm = torch.cat([(w * p.grad).flatten() for w, p in zip(weights, self.params, strict=True)]).norm()
            old = [p.clone() for p in self.params]
            for w, p in zip(weights, self.params, strict=True):
                p += self.rho / (norm + 1e-12) * w * w * p.grad
        closure()
        with torch.no_grad():
            for p, value in zip(self.params, old, strict=True):
                p.copy_(value)
        self.base.step()
        return loss


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    ("name", "base"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)], ids=["sgd", "adamw"]
)
def test_equals_its_twin(name, base, adaptive):
    model, twin_model = network(), network()
    ours = get_optimizer(name)(model.parameters(), lr=0.02, sam_rho=0.1, sam_adaptive=adaptive, weight_decay=0.01)
    options = {"momentum": 0.9} if name == "sgd" else {}
    twin = Twin(
        twin_model.parameters(), base(twin_model.parameters(), lr=0.02, weight_decay=0.01, **options), 0.1, adaptive
    )
    for step in range(60):
        a = ours.step(closure_of(model, ours, step))
        b = twin.step(closure_of(twin_model, twin.base, step))
        assert a.item() == pytest.approx(b.item(), rel=1e-10)
    for p, q in zip(model.parameters(), twin_model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("adaptive", [False, True])
def test_equals_pytorch_optimizer(adaptive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("pytorch_optimizer")
    model, peer_model = network(), network()
    ours = get_optimizer("sgd")(model.parameters(), lr=0.05, momentum=0.9, sam_rho=0.1, sam_adaptive=adaptive)
    theirs = peer.SAM(
        peer_model.parameters(), torch.optim.SGD, rho=0.1, adaptive=adaptive, lr=0.05, momentum=0.9, weight_decay=0.0
    )
    for step in range(60):
        ours.step(closure_of(model, ours, step))
        closure = closure_of(peer_model, theirs, step)
        closure()
        theirs.step(closure)
    for p, q in zip(model.parameters(), peer_model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-8)  # its norm is of float32


def test_weights_come_back_bit_for_bit_and_move_by_rho():
    model = network()
    optimizer = get_optimizer("adamw")(model.parameters(), sam_rho=0.1)
    closure_of(model, optimizer, 0)()
    before = [p.detach().clone() for p in model.parameters()]
    with optimizer.perturbed() as norm:
        moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)]).norm()
        assert moved.item() == pytest.approx(0.1, rel=1e-9)
    assert norm.item() == pytest.approx(torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item())
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_weights_come_back_after_an_error():
    model = network()
    optimizer = get_optimizer("adamw")(model.parameters(), sam_rho=0.1)
    closure_of(model, optimizer, 0)()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match="data"), optimizer.perturbed():
        raise RuntimeError("no data")
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    with pytest.raises(InputError, match="closure"):
        optimizer.step()


def test_batch_statistics_count_a_batch_once():
    model, plain = network(norm=True), network(norm=True)
    sam = get_optimizer("sgd")(model.parameters(), lr=0.0, sam_rho=0.5)
    base = get_optimizer("sgd")(plain.parameters(), lr=0.0)
    for step in range(3):
        sam.step(closure_of(model, sam, step))
        base.step(closure_of(plain, base, step))
    for (name, mine), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("broken", [0, 1], ids=["first", "second"])
def test_a_gradient_that_is_not_finite_changes_nothing(broken):
    params = parameters()
    optimizer = get_optimizer("adamw")(params, sam_rho=0.1)
    calls = []

    def closure():
        optimizer.zero_grad()
        factor = float("nan") if len(calls) % 2 == broken and len(calls) >= 2 else 1.0
        calls.append(0)
        loss = sum((p**2).sum() for p in params) * factor
        loss.backward()
        return loss

    optimizer.step(closure)
    before, state = [p.detach().clone() for p in params], copy.deepcopy(optimizer.state_dict()["state"])
    optimizer.step(closure)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    for index, slots in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state[index][key]) for key, value in slots.items())
    calls[:] = []
    optimizer.step(closure)
    assert not torch.equal(params[0], before[0])


def test_a_loss_scale_changes_nothing():
    """Unscaled at both passes: one in the class, the other by GradScaler's two calls."""
    models = [network() for _ in range(3)]
    optimizers = [get_optimizer("adamw")(m.parameters(), lr=0.01, sam_rho=0.1, sam_adaptive=True) for m in models]
    optimizers[1].grad_scale = torch.tensor(1024.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(5):
        optimizers[0].step(closure_of(models[0], optimizers[0], step))
        optimizers[1].step(closure_of(models[1], optimizers[1], step, scale=1024.0))
        scale = scaler.scale(torch.ones(())).item()
        closure = closure_of(models[2], optimizers[2], step, scale)
        closure()
        with optimizers[2].perturbed():
            closure()
        scaler.step(optimizers[2])
        scaler.update()
    for model in models[1:]:
        for p, q in zip(models[0].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_without_a_closure_it_is_refused_with_the_remedy():
    optimizer = get_optimizer("lion")(parameters(), sam_rho=0.1)
    with pytest.raises(InputError, match=r"sam_rho=0.1: needs two gradients.*step\(closure\)"):
        optimizer.step()
    with pytest.raises(InputError, match="sam_adaptive"):
        get_optimizer("lion")(parameters(), sam_adaptive=True)
    with pytest.raises(InputError, match="no radius"), get_optimizer("lion")(parameters()).perturbed():
        pass


def test_nothing_is_read_back_from_the_device():
    params = [nn.Parameter(torch.empty(3, 2, device="meta")), nn.Parameter(torch.empty(2, device="meta"))]
    optimizer = get_optimizer("adamw")(params, sam_rho=0.1, sam_adaptive=True, engine="reference")

    def closure():
        for p in params:
            p.grad = torch.empty_like(p)
        return torch.zeros(())

    optimizer.step(closure)


def test_copies_keep_the_radius():
    optimizer = copy.deepcopy(get_optimizer("lion")(parameters(), sam_rho=0.1))
    assert optimizer.whole["sam_rho"] == 0.1

"""Updates inside the backward pass."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients


class Tied(nn.Module):
    """Five layers, of which the first and the last share a weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(5)])
        self.layers[4].weight = self.layers[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh()
        return x


def train(model, optimizer, first, last):
    for step in range(first, last):
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()


OPTIONS = [
    ("adamw", {}), ("sgd", {"momentum": 0.9}), ("lion", {"cautious": True}),
    ("adamw", {"lookahead": 2, "state": "factored", "orthograd": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_equals_the_plain_step_bit_for_bit(name, options):
    model, twin = Tied(), Tied()
    fused = get_optimizer(name)(model.parameters(), fused_backward=True, engine="reference", **options)
    plain = get_optimizer(name)(twin.parameters(), engine="reference", **options)
    train(model, fused, 0, 6)
    train(twin, plain, 0, 6)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.grad is None
        assert all(torch.equal(fused.state[p][key], plain.state[q][key]) for key in plain.state[q])


def test_the_fastest_engine_too():
    model, twin = Tied(), Tied()
    train(model, get_optimizer("adamw")(model.parameters(), fused_backward=True), 0, 6)
    train(twin, get_optimizer("adamw")(twin.parameters()), 0, 6)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_few_gradients_are_alive_at_a_time():
    model = Tied()
    optimizer = get_optimizer("lion")(model.parameters(), fused_backward=True)
    alive = []
    for p in model.parameters():  # these run after the optimizer's
        p.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(q.grad is not None for q in model.parameters()))
        )
    model(torch.ones(2, 6)).sum().backward()
    assert len(alive) == 9
    assert max(alive) <= 1
    optimizer.step()


def test_a_gradient_that_is_not_finite_is_skipped_for_its_parameter_and_told():
    params = parameters()
    optimizer = get_optimizer("adamw")(params, fused_backward=True)
    sum((p**2).sum() for p in params).backward()
    assert optimizer.fused.measurement().norm.item() == pytest.approx(
        2 * torch.cat([p.flatten() for p in parameters()]).norm().item()
    )
    optimizer.step()
    before = [p.detach().clone() for p in params]
    state = copy.deepcopy(optimizer.state[params[0]])
    (params[0] * float("nan")).sum().backward()
    (params[1] ** 2).sum().backward()
    assert not optimizer.fused.measurement().norm.isfinite()
    optimizer.step()
    assert torch.equal(params[0], before[0])
    assert all(torch.equal(optimizer.state[params[0]][key], value) for key, value in state.items())
    assert not torch.equal(params[1], before[1])
    assert params[0].grad is None


def test_gradients_set_by_hand_wait_for_step():
    params, twins = parameters(), parameters()
    fused, plain = get_optimizer("adamw")(params, fused_backward=True), get_optimizer("adamw")(twins)
    for optimizer, ps in ((fused, params), (plain, twins)):
        set_gradients(ps, 0)
        optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


def test_a_second_backward_pass_has_to_wait_for_step():
    p = nn.Parameter(torch.ones(3))
    optimizer = get_optimizer("sgd")([p], fused_backward=True)
    p.sum().backward()
    with pytest.raises(InputError, match="accumulated"):
        p.sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [("sgd", {"sam_rho": 0.1}, "sam_rho"), ("prodigy", {}, "sums over all"), ("lamb", {}, "sums over all")],
    ids=["sam", "prodigy", "lamb"],
)
def test_what_needs_all_gradients_is_refused(name, options, reason):
    with pytest.raises(InputError, match=f"fused_backward=true.*{reason}"):
        get_optimizer(name)(parameters(), fused_backward=True, **options)


def test_a_loss_scale_is_refused():
    p = nn.Parameter(torch.ones(3))
    optimizer = get_optimizer("sgd")([p], fused_backward=True)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(p.sum()).backward()
    with pytest.raises(InputError, match="unscale"):
        scaler.step(optimizer)


@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_copies_update_their_own_parameters_alone(clone):
    model = Tied()
    optimizer = get_optimizer("adamw")(model.parameters(), fused_backward=True)
    train(model, optimizer, 0, 2)
    twin_model, twin = clone((model, optimizer))
    before = [p.detach().clone() for p in model.parameters()]
    train(twin_model, twin, 2, 4)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    train(model, optimizer, 2, 4)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin_model.parameters(), strict=True))


def test_resume_is_bitwise():
    model, twin = Tied(), Tied()
    optimizer = get_optimizer("adamw")(model.parameters(), fused_backward=True)
    train(model, optimizer, 0, 3)
    twin.load_state_dict(model.state_dict())
    second = get_optimizer("adamw")(twin.parameters(), fused_backward=True, lr=0.5)
    second.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 3, 6)
    train(twin, second, 3, 6)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_late_groups_are_watched_and_a_dead_optimizer_watches_nothing():
    p, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = get_optimizer("sgd")([p], fused_backward=True)
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    late.sum().backward()
    assert torch.equal(late.detach(), torch.full((2,), 0.5))
    reference = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert reference() is None
    late.sum().backward()
    assert torch.equal(late.grad, torch.ones(2))


def test_gradients_whose_squares_overflow_are_finite():
    weight = nn.Parameter(torch.ones(4))
    optimizer = get_optimizer("lion")([weight], lr=0.5, weight_decay=0.0, fused_backward=True)
    (weight * 1e25).sum().backward()
    found = optimizer.fused.measurement()
    assert float(found.norm) == pytest.approx(2e25)
    assert float(found.found_inf) == 0
    torch.testing.assert_close(weight.detach(), torch.full((4,), 0.5))

"""Sophia against the paper and pytorch_optimizer's SophiaH, with estimates from outside, in float64."""

from __future__ import annotations

import pytest
import torch

from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES

each_engine = pytest.mark.parametrize("engine", ENGINES)
each_estimator = pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])


def estimates(params, step, can_be_negative):
    """Curvature as an estimator would report it."""
    generator = torch.Generator().manual_seed(1000 + step)
    noise = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in params]
    return [30 * (n + 0.2) if can_be_negative else 30 * n**2 for n in noise]


def hand_in(optimizer, estimates):
    """The estimates, in the order of the optimizer's parameters."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    optimizer.take_estimate(dict(zip(params, estimates, strict=True)))


class Sophia:
    """Liu et al. 2024, Algorithm 3."""

    def __init__(self, groups):
        self.param_groups = groups
        params = [p for group in groups for p in group["params"]]
        self.state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in params}

    @torch.no_grad()
    def step(self, hessian=None):
        for (_, h), estimate, beta2 in zip(self.state.values(), hessian or (), self._decays(), strict=False):
            h.lerp_(estimate, 1 - beta2)
        for group in self.param_groups:
            for p in group["params"]:
                m, h = self.state[p]
                m.lerp_(p.grad, 1 - group["betas"][0])
                p *= 1 - group["lr"] * group["weight_decay"]
                bound = group["rho"] * h.clamp(min=0) + 1e-15
                p -= group["lr"] * m.sign() * (m.abs() / bound).clamp(max=1)

    def _decays(self):
        return [group["betas"][1] for group in self.param_groups for _ in group["params"]]


def train_both(ours, mine, theirs, yours, can_be_negative):
    """60 steps with an estimate at every third; the largest difference at any step."""
    worst = 0.0
    bases = [[group["lr"] for group in optimizer.param_groups] for optimizer in (ours, theirs)]
    for step in range(60):
        for optimizer, params, lrs in zip((ours, theirs), (mine, yours), bases, strict=True):
            set_gradients(params, step)
            for group, base in zip(optimizer.param_groups, lrs, strict=True):
                group["lr"] = base * (1 + step % 5)
        made = estimates(mine, step, can_be_negative) if step % 3 == 0 else None
        if made is not None:
            hand_in(ours, made)
        ours.step()
        theirs.step(hessian=made)
        worst = max(worst, *((a - b).abs().max().item() for a, b in zip(mine, yours, strict=True)))
    return worst


def test_estimates_matter():
    """Both sides of the clip are visited."""
    params = parameters()
    optimizer = get_optimizer("sophia")(params, lr=3e-4)
    hand_in(optimizer, estimates(params, 0, False))
    set_gradients(params, 0)
    before = [p.detach().clone() for p in params]
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()
    steps = torch.cat([((p - b).abs() / 3e-4).flatten() for p, b in zip(params, before, strict=True)])
    assert 0.1 < (steps < 0.999).double().mean() < 0.95


@each_engine
@each_estimator
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sophia_equals_the_paper(engine, estimator, weight_decay):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "betas": (0.965, 0.99), "rho": 0.04, "weight_decay": weight_decay}
    second = {"lr": 3e-3, "betas": (0.9, 0.9), "rho": 0.1, "weight_decay": 0.3}
    ours = get_optimizer("sophia")(two_groups(mine, **second), **options, estimator=estimator, engine=engine)
    theirs = Sophia([{"params": yours[:1], **options}, {"params": yours[1:], **second}])
    assert train_both(ours, mine, theirs, yours, estimator == "hutchinson") < 1e-12


@each_engine
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sophia_equals_pytorch_optimizer_in_its_units(engine, weight_decay):
    """Its step is lr clip(m / h, p): ours with rho = p, at lr p."""
    po = pytest.importorskip("pytorch_optimizer")
    mine, yours = parameters(), parameters()
    rho = 0.04
    ours = get_optimizer("sophia")(
        mine, lr=1e-2, betas=(0.96, 0.99), rho=rho, weight_decay=weight_decay, estimator="hutchinson", engine=engine
    )
    theirs = po.SophiaH(
        yours, lr=1e-2 / rho, betas=(0.96, 0.99), p=rho, weight_decay=weight_decay * rho, update_period=10**6
    )
    assert train_both(ours, mine, theirs, yours, True) < 1e-12


@each_engine
def test_without_an_estimate_it_takes_sign_steps(engine):
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    p.grad = torch.tensor([1e-3, -5.0, 0.0], dtype=torch.float64)
    get_optimizer("sophia")([p], lr=0.1, weight_decay=0.0, engine=engine).step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.9, 1.1, 1.0], dtype=torch.float64))


@each_estimator
def test_what_an_estimate_changes(estimator):
    """The average moves, the weights and the mean gradient do not; a step leaves the average alone."""
    params = parameters()
    optimizer = get_optimizer("sophia")(params, estimator=estimator)
    set_gradients(params, 0)
    optimizer.step()
    weights, means = [p.detach().clone() for p in params], [optimizer.state[p]["exp_avg"].clone() for p in params]
    made = estimates(params, 0, False)
    hand_in(optimizer, made)
    for p, weight, mean, estimate in zip(params, weights, means, made, strict=True):
        assert torch.equal(p, weight)
        assert torch.equal(optimizer.state[p]["exp_avg"], mean)
        torch.testing.assert_close(optimizer.state[p]["hessian"], 0.01 * estimate, rtol=1e-12, atol=0)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[params[0]]["hessian"], 0.01 * made[0], rtol=1e-12, atol=0)

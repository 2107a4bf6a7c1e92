"""LAMB and LARS against the papers written out, and against timm where it is installed, in float64."""

from __future__ import annotations

import itertools

import pytest
import torch

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES, train_both

each_engine = pytest.mark.parametrize("engine", ENGINES)


class Lamb:
    """You et al. 2020, Algorithm 2, with the global clip of the authors' code."""

    def __init__(self, groups):
        self.param_groups, self.count = groups, 0
        self.state = {p: (torch.zeros_like(p), torch.zeros_like(p)) for group in groups for p in group["params"]}

    @torch.no_grad()
    def step(self):
        self.count += 1
        norm = torch.cat([p.grad.flatten() for p in self.state]).norm().item()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            limit, wd = group["max_grad_norm"], group["weight_decay"]
            scale = 1.0 if limit is None else min(1.0, limit / norm)
            for p in group["params"]:
                m, v = self.state[p]
                m.lerp_(scale * p.grad, 1 - beta1)
                v.lerp_((scale * p.grad) ** 2, 1 - beta2)
                u = m / (1 - beta1**self.count) / ((v / (1 - beta2**self.count)).sqrt() + group["eps"]) + wd * p
                adapts = (wd != 0 or group["always_adapt"]) and p.norm() > 0 and u.norm() > 0
                p -= group["lr"] * (p.norm() / u.norm() if adapts else 1.0) * u


class Lars:
    """You et al. 2017, Algorithm 1, with the rate outside the momentum."""

    def __init__(self, groups):
        self.param_groups = groups
        self.state = {p: torch.zeros_like(p) for group in groups for p in group["params"]}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            mu, wd = group["momentum"], group["weight_decay"]
            for p in group["params"]:
                bound = p.grad.norm() + wd * p.norm() + group["eps"]
                adapts = (wd != 0 or group["always_adapt"]) and p.norm() > 0 and p.grad.norm() > 0
                g = (p.grad + wd * p) * (group["trust_coefficient"] * p.norm() / bound if adapts else 1.0)
                buffer = self.state[p].mul_(mu).add_(g)
                p -= group["lr"] * (g + mu * buffer if group["nesterov"] else buffer)


def distance(name, oracle, engine, options, second, silent=False):
    """How far the two are apart over 60 steps of two groups."""
    mine, yours = parameters(), parameters()
    if silent:
        for p in (mine[1], yours[1]):
            p.data.zero_()
    ours = get_optimizer(name)(two_groups(mine, **second), **options, engine=engine)
    theirs = oracle([{"params": yours[:1], **options}, {"params": yours[1:], **options, **second}])
    return train_both(ours, mine, theirs, yours)


LAMBS = [
    {"weight_decay": wd, "max_grad_norm": limit, "always_adapt": always}
    for wd, limit, always in itertools.product((0.0, 0.1), (None, 1.0, 100.0), (False, True))
]


def lamb_options(variant):
    options = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-6, **variant}
    return options, {"lr": 3e-2, "betas": (0.8, 0.95), "weight_decay": 0.3 if variant["weight_decay"] else 0.0}


@each_engine
@pytest.mark.parametrize("variant", LAMBS, ids=str)
def test_lamb_equals_the_paper(engine, variant):
    assert distance("lamb", Lamb, engine, *lamb_options(variant), silent=True) < 1e-12


@each_engine
def test_lamb_clips_all_groups_by_one_norm(engine):
    """Limits may differ; the norm is that of the parameters of all groups."""
    options, second = lamb_options({"weight_decay": 0.1, "max_grad_norm": 1.0, "always_adapt": False})
    assert distance("lamb", Lamb, engine, options, {**second, "max_grad_norm": 0.1, "weight_decay": 0.0}) < 1e-12


@each_engine
@pytest.mark.parametrize("variant", LAMBS, ids=str)
def test_lamb_equals_timm(engine, variant):
    lamb = pytest.importorskip("timm.optim.lamb")
    options, second = lamb_options(variant)
    mine, yours = parameters(), parameters()
    ours = get_optimizer("lamb")(two_groups(mine, **second), **options, engine=engine)
    theirs = lamb.Lamb(two_groups(yours, **second), **options)
    assert train_both(ours, mine, theirs, yours) < 1e-12


def test_lamb_of_pytorch_optimizer_is_another_rule():
    """It corrects no moments and bounds |p| at 10."""
    po = pytest.importorskip("pytorch_optimizer")
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.0}
    ours = get_optimizer("lamb")(mine, **options, always_adapt=True, max_grad_norm=None)
    assert train_both(ours, mine, po.Lamb(yours, **options), yours) > 1e-3


@each_engine
@pytest.mark.parametrize("always_adapt", [False, True])
def test_lamb_without_gradient_and_decay_stands_still(engine, always_adapt):
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.zeros(3)
    get_optimizer("lamb")([p], weight_decay=0.0, always_adapt=always_adapt, engine=engine).step()
    assert torch.equal(p, torch.ones(3))


@pytest.mark.parametrize("decay", ["coupled", "decoupled", "cautious"])
@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_decay_can_be_chosen(name, decay):
    """Each gives another result, and none stops the weights from adapting."""
    results = []
    for kind in (None, decay):
        params = parameters()
        optimizer = get_optimizer(name)(params, lr=1e-2, weight_decay=0.5, decay=kind)
        for p in params:
            p.grad = p.detach().cos()
        optimizer.step()
        results.append(params[0].detach())
    is_its_own = (name, decay) == ("lars", "coupled")
    assert torch.equal(*results) == is_its_own


LARSES = [
    {"momentum": mu, "weight_decay": wd, "nesterov": nesterov, "always_adapt": always}
    for mu, wd, nesterov, always in itertools.product((0.0, 0.9), (0.0, 0.1), (False, True), (False, True))
    if mu or not nesterov
]


def lars_options(variant):
    options = {"lr": 1e-1, "trust_coefficient": 1e-2, "eps": 1e-8, **variant}
    return options, {"lr": 3e-2, "weight_decay": 0.3 if variant["weight_decay"] else 0.0}


@each_engine
@pytest.mark.parametrize("variant", LARSES, ids=str)
def test_lars_equals_the_paper(engine, variant):
    assert distance("lars", Lars, engine, *lars_options(variant), silent=True) < 1e-12


@each_engine
@pytest.mark.parametrize("variant", LARSES, ids=str)
def test_lars_equals_timm(engine, variant):
    lars = pytest.importorskip("timm.optim.lars")
    options, second = lars_options(variant)
    mine, yours = parameters(), parameters()
    ours = get_optimizer("lars")(two_groups(mine, **second), **options, engine=engine)
    renamed = {"trust_coeff" if key == "trust_coefficient" else key: value for key, value in options.items()}
    assert train_both(ours, mine, lars.Lars(two_groups(yours, **second), **renamed), yours) < 1e-12


def test_lars_of_pytorch_optimizer_spares_vectors():
    """Of matrices the two agree, but for eps; vectors it neither decays nor scales."""
    po = pytest.importorskip("pytorch_optimizer")
    options = {"lr": 1e-1, "weight_decay": 0.1, "momentum": 0.9, "trust_coefficient": 1e-2}
    worst = []
    for chosen in (slice(0, 1), slice(1, 2)):
        mine, yours = parameters()[chosen], parameters()[chosen]
        ours = get_optimizer("lars")(mine, **options, eps=0.0)
        worst.append(train_both(ours, mine, po.LARS(yours, **options), yours))
    assert worst[0] < 1e-12
    assert worst[1] > 1e-3


def test_lars_refuses_nesterov_without_momentum():
    with pytest.raises(InputError, match="nesterov"):
        get_optimizer("lars")(parameters(), nesterov=True, momentum=0.0)

"""Adam's relatives, RMSprop, Adagrad and Ranger against torch.optim, pytorch_optimizer and the papers, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES, train_both

each_engine = pytest.mark.parametrize("engine", ENGINES)
each_decay = pytest.mark.parametrize("weight_decay", [0.0, 0.1])


@pytest.fixture
def _double():
    """torch.optim.NAdam keeps its product of momenta in the default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def distance(name, oracle, engine, second, **options):
    """How far the two are apart over 60 steps of two groups."""
    mine, yours = parameters(), parameters()
    ours = get_optimizer(name)(two_groups(mine, **second), **options, engine=engine)
    return train_both(ours, mine, oracle(two_groups(yours, **second), **options), yours)


SECOND = {"lr": 3e-2, "weight_decay": 0.3, "eps": 1e-4}


@each_engine
@each_decay
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
def test_adam_equals_torch(engine, weight_decay, betas):
    options = {"lr": 1e-2, "betas": betas, "weight_decay": weight_decay}
    assert distance("adam", torch.optim.Adam, engine, SECOND, **options) < 1e-12


@each_engine
def test_adam_with_decoupled_decay_is_adamw(engine):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    ours = get_optimizer("adam")(two_groups(mine, **SECOND), **options, decay="decoupled", engine=engine)
    theirs = torch.optim.AdamW(two_groups(yours, **SECOND), **options)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_engine
def test_adamw_with_coupled_decay_is_adam(engine):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    ours = get_optimizer("adamw")(two_groups(mine, **SECOND), **options, decay="coupled", engine=engine)
    theirs = torch.optim.Adam(two_groups(yours, **SECOND), **options)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@pytest.mark.usefixtures("_double")
@each_engine
@each_decay
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9)])
@pytest.mark.parametrize("momentum_decay", [0.0, 4e-3])
def test_nadam_equals_torch(engine, weight_decay, betas, momentum_decay):
    options = {"lr": 1e-2, "betas": betas, "weight_decay": weight_decay, "momentum_decay": momentum_decay}
    assert distance("nadam", torch.optim.NAdam, engine, {**SECOND, "momentum_decay": 0.1}, **options) < 1e-12


@pytest.mark.usefixtures("_double")
@each_engine
def test_nadam_with_decoupled_decay_equals_torch(engine):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    ours = get_optimizer("nadam")(two_groups(mine, **SECOND), **options, decay="decoupled", engine=engine)
    theirs = torch.optim.NAdam(two_groups(yours, **SECOND), **options, decoupled_weight_decay=True)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_engine
@each_decay
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.95), (0.9, 0.6)], ids=str)
def test_radam_equals_torch(engine, weight_decay, betas):
    """With b2 = 0.6 the memory is too short to be rectified ever."""
    options = {"lr": 1e-2, "betas": betas, "weight_decay": weight_decay}
    assert distance("radam", torch.optim.RAdam, engine, SECOND, **options) < 1e-12


@each_engine
def test_radam_with_decoupled_decay_equals_torch(engine):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    ours = get_optimizer("radam")(two_groups(mine, **SECOND), **options, decay="decoupled", engine=engine)
    theirs = torch.optim.RAdam(two_groups(yours, **SECOND), **options, decoupled_weight_decay=True)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_engine
@each_decay
@pytest.mark.parametrize(("momentum", "centered"), list(itertools.product((0.0, 0.9), (False, True))))
def test_rmsprop_equals_torch(engine, weight_decay, momentum, centered):
    options = {"lr": 1e-3, "alpha": 0.95, "weight_decay": weight_decay, "momentum": momentum, "centered": centered}
    second = {**SECOND, "lr": 3e-3, "alpha": 0.99}
    # Where a gradient hardly varies, the variance is a small difference of large numbers: it keeps fewer digits.
    tolerance = 1e-10 if centered else 1e-12
    assert distance("rmsprop", torch.optim.RMSprop, engine, second, **options) < tolerance


@each_engine
def test_centred_rmsprop_of_a_steady_gradient_is_finite(engine):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = get_optimizer("rmsprop")([p], lr=1e-3, centered=True, engine=engine)
    for _ in range(3000):
        p.grad = torch.full((3,), 0.1)
        optimizer.step()
    assert p.isfinite().all()


@each_engine
@each_decay
@pytest.mark.parametrize(("lr_decay", "start"), list(itertools.product((0.0, 0.1), (0.0, 0.5))))
def test_adagrad_equals_torch(engine, weight_decay, lr_decay, start):
    options = {"lr": 1e-1, "lr_decay": lr_decay, "weight_decay": weight_decay, "initial_accumulator_value": start}
    # torch fills all accumulators with the first group's start, so the groups do not differ in it.
    assert distance("adagrad", torch.optim.Adagrad, engine, SECOND, **options) < 1e-12


PAIRS = {
    "adam": torch.optim.Adam, "nadam": torch.optim.NAdam, "radam": torch.optim.RAdam, "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
}  # fmt: skip


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("name", PAIRS)
def test_torch_state_is_continued(name):
    params, unbroken = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.1}
    before, whole = PAIRS[name](params, **options), PAIRS[name](unbroken, **options)
    for step in range(10):
        if step == 5:
            after = get_optimizer(name)(params)
            after.load_state_dict(before.state_dict())
        for optimizer, ps in ((before if step < 5 else after, params), (whole, unbroken)):
            set_gradients(ps, step)
            optimizer.step()
    for p, q in zip(params, unbroken, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


class Ranger:
    """RAdam, Lookahead and centralised gradients, from the three papers and the author's order of them."""

    def __init__(self, groups):
        self.param_groups = groups
        self.state = {p: [torch.zeros_like(p), torch.zeros_like(p), p.detach().clone()] for p in self._parameters()}
        self.count = 0

    def _parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def step(self):
        self.count += 1
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                g = p.grad - p.grad.mean(tuple(range(1, p.ndim)), keepdim=True) if p.ndim > 1 else p.grad
                m, v, slow = self.state[p]
                m.mul_(beta1).add_((1 - beta1) * g)
                v.mul_(beta2).add_((1 - beta2) * g**2)
                p -= group["lr"] * group["weight_decay"] * p
                p -= group["lr"] * self._direction(m / (1 - beta1**self.count), v, beta2, group["eps"])
                if self.count % 6 == 0:
                    slow += 0.5 * (p - slow)
                    p.copy_(slow)

    def _direction(self, mean, v, beta2, eps):
        most, correction = 2 / (1 - beta2) - 1, 1 - beta2**self.count
        length = most - 2 * self.count * beta2**self.count / correction
        if length <= 5:
            return mean
        r = math.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
        return r * math.sqrt(correction) * mean / (v.sqrt() + eps)


RANGER = {"lr": 1e-2, "betas": (0.95, 0.999), "eps": 1e-5}
RANGER_SECOND = {"lr": 3e-2, "betas": (0.9, 0.95), "eps": 1e-3, "weight_decay": 0.3}


@each_engine
@each_decay
def test_ranger_equals_the_papers(engine, weight_decay):
    mine, yours = parameters(), parameters()
    options = {**RANGER, "weight_decay": weight_decay}
    ours = get_optimizer("ranger")(two_groups(mine, **RANGER_SECOND), **options, engine=engine)
    theirs = Ranger([{"params": yours[:1], **options}, {"params": yours[1:], **RANGER_SECOND}])
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_decay
@pytest.mark.parametrize("ascends", [False, True])
def test_ranger_equals_pytorch_optimizer_where_that_descends(weight_decay, ascends):
    """Unless told otherwise it adds the mean while the moments are too young, and so climbs."""
    po = pytest.importorskip("pytorch_optimizer")
    mine, yours = parameters(), parameters()
    options = {**RANGER, "weight_decay": weight_decay}
    ours = get_optimizer("ranger")(two_groups(mine, **RANGER_SECOND), **options)
    theirs = po.Ranger(two_groups(yours, **RANGER_SECOND), **options, degenerated_to_sgd=not ascends)
    difference = train_both(ours, mine, theirs, yours)
    assert difference > 1e-3 if ascends else difference < 1e-12


def test_ranger_is_radam_with_shared_options():
    """Without them it is RAdam with decoupled decay."""
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
    ours = get_optimizer("ranger")(mine, **options, lookahead=None, centralise=False)
    theirs = torch.optim.RAdam(yours, **options, decoupled_weight_decay=True)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_engine
def test_atan2_of_an_unrectified_step_is_the_mean(engine):
    p = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    p.grad = torch.tensor([0.5, -2.0], dtype=torch.float64)
    get_optimizer("radam")([p], lr=0.1, atan2=True, engine=engine).step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.95, 1.2], dtype=torch.float64))

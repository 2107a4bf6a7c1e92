"""Prodigy against prodigyopt, in float64."""

from __future__ import annotations

import prodigyopt
import pytest
import torch

from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES, train_both

PLAIN = {"bias_correction": False, "safeguard_warmup": False}
"""prodigyopt's defaults."""
VARIANTS = [
    ({}, {}),
    ({"bias_correction": True}, {"use_bias_correction": True}),
    ({"safeguard_warmup": True}, {"safeguard_warmup": True}),
    ({"growth_rate": 1.1}, {"growth_rate": 1.1}),
    ({"beta3": 0.9, "d_coef": 2.0}, {"beta3": 0.9, "d_coef": 2.0}),
    ({"decay": "coupled"}, {"decouple": False}),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("variant", "theirs"), VARIANTS, ids=str)
def test_prodigy_equals_prodigyopt(engine, weight_decay, variant, theirs):
    mine, yours = parameters(), parameters()
    options, second = {"d0": 1e-4, "weight_decay": weight_decay}, {"weight_decay": 0.3}
    ours = get_optimizer("prodigy")(two_groups(mine, **second), **PLAIN | options | variant, engine=engine)
    oracle = prodigyopt.Prodigy(two_groups(yours, **second), **options, **theirs)
    assert train_both(ours, mine, oracle, yours) < 1e-10
    for key in ("d", "d_max", "d_numerator"):
        torch.testing.assert_close(float(ours.param_groups[1][key]), oracle.param_groups[1][key], rtol=1e-11, atol=0)
    assert oracle.param_groups[0]["d"] > 3e-4


def test_without_a_first_moment_the_gradient_has_the_old_scale():
    """What is left of (1 - b1) d g is d g, with the d of before the step. prodigyopt takes the d of after it, if only
    where the first of `betas` is 0 to the bit: next to it, it agrees with us.
    """
    for beta1, low, high in ((0.0, 1e-3, 10.0), (1e-300, 0.0, 1e-10)):
        mine, yours = parameters(), parameters()
        ours = get_optimizer("prodigy")(mine, betas=(beta1, 0.99), d0=1e-4, **PLAIN)
        assert low <= train_both(ours, mine, prodigyopt.Prodigy(yours, betas=(beta1, 0.99), d0=1e-4), yours) < high


@pytest.mark.parametrize("engine", ENGINES)
def test_one_estimate_for_all_groups(engine):
    params = parameters()
    optimizer = get_optimizer("prodigy")(two_groups(params, weight_decay=0.3), **PLAIN, engine=engine)
    for step in range(5):
        set_gradients(params, step)
        optimizer.step()
    first, second = (group["d"] for group in optimizer.param_groups)
    assert torch.equal(first, second)
    assert first > 1e-6


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("is_added", [False, True])
def test_who_comes_late_shares_the_estimate(engine, is_added):
    """A group thawed or added in the middle of training does not throw the others back to d0."""
    params = parameters()
    early, late = {"params": params[:1]}, {"params": params[1:]}
    groups = [early] if is_added else [early, late]
    optimizer = get_optimizer("prodigy")(groups, d0=1e-4, **PLAIN, engine=engine)
    for step in range(10):
        set_gradients(params[:1], step)
        optimizer.step()
    grown = float(optimizer.param_groups[0]["d"])
    if is_added:
        optimizer.add_param_group(late)
    set_gradients(params, 10)
    optimizer.step()
    estimates = [float(group["d"]) for group in optimizer.param_groups]
    assert estimates[0] == estimates[1] >= grown > 2e-4


def test_no_gradient_proves_no_distance():
    """Gradients of zero leave the estimate, where prodigyopt takes no step at all."""
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = get_optimizer("prodigy")(params)
    for p in params:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    assert optimizer.param_groups[0]["d"] == 1e-6
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_state_is_sixteen_bytes_a_parameter():
    p = torch.nn.Parameter(torch.ones(100, 100))
    p.grad = torch.ones(100, 100)
    optimizer = get_optimizer("prodigy")([p])
    optimizer.step()
    assert sum(value.nbytes for value in optimizer.state[p].values() if value.dim()) == 16 * p.numel()

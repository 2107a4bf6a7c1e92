"""AdEMAMix against pytorch_optimizer, its simplified form against adv_optm, in float64."""

from __future__ import annotations

import math

import adv_optm
import pytest
import pytorch_optimizer

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES, train_both


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("warmup", [None, 40])
def test_ademamix_equals_pytorch_optimizer(engine, weight_decay, warmup):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "betas": (0.9, 0.99, 0.999), "alpha": 4.0, "weight_decay": weight_decay}
    second = {"lr": 3e-2, "weight_decay": 0.3, "eps": 1e-4}
    ours = get_optimizer("ademamix")(
        two_groups(mine, **second), **options, alpha_warmup=warmup, beta3_warmup=warmup, engine=engine
    )
    theirs = pytorch_optimizer.AdEMAMix(
        two_groups(yours, **second), **options, weight_decouple=True, t_alpha_beta3=warmup, foreach=False
    )
    assert train_both(ours, mine, theirs, yours) < 1e-12


@pytest.mark.parametrize("alpha_warmup", [None, 40])
@pytest.mark.parametrize("beta3_warmup", [None, 40])
def test_the_warmups_are_apples(alpha_warmup, beta3_warmup):
    """Each by itself, as in the authors' code: alpha on a line, beta3 by a half-life on a line."""
    p = parameters()[:1]
    optimizer = get_optimizer("ademamix")(p, lr=0.0, alpha_warmup=alpha_warmup, beta3_warmup=beta3_warmup)
    slow = 0.0
    for step in range(1, 60):
        p[0].grad = p[0].detach() * 0 + math.cos(step)
        optimizer.step()
        share = min(step / beta3_warmup, 1) if beta3_warmup else 1
        half_lives = [math.log(0.5) / math.log(beta) for beta in (0.9, 0.9999)]
        beta3 = 0.5 ** (1 / ((1 - share) * half_lives[0] + share * half_lives[1]))
        slow = beta3 * slow + (1 - beta3) * math.cos(step)
        assert optimizer.state[p[0]]["exp_avg_slow"][0, 0].item() == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("variant", [{}, {"alpha_grad": 0.0}, {"beta1_warmup": 30}, {"use_bias_correction": False}])
def test_simplified_ademamix_equals_adv_optm(engine, weight_decay, variant):
    """The warmup agrees to 1e-7 only: adv_optm adds 1e-8 to each decay before it takes the logarithm."""
    mine, yours = parameters(), parameters()
    corrected = variant.get("use_bias_correction", True)
    options = {"lr": 1e-3 if corrected else 1e-5, "weight_decay": weight_decay, "eps": 1e-8 if corrected else 1e-16}
    second = {"lr": 3 * options["lr"], "weight_decay": 0.3}
    names = {"alpha_grad": "alpha", "use_bias_correction": "bias_correction"}
    own = {names.get(key, key): value for key, value in variant.items()}
    ours = get_optimizer("simplified_ademamix")(two_groups(mine, **second), **options, **own, engine=engine)
    theirs = adv_optm.Simplified_AdEMAMix(two_groups(yours, **second), **options, **variant)
    assert train_both(ours, mine, theirs, yours) < (1e-7 if "beta1_warmup" in variant else 1e-12)


@pytest.mark.parametrize("name", ["ademamix", "simplified_ademamix"])
def test_a_second_slow_mean_is_refused(name):
    with pytest.raises(InputError, match="slow mean"):
        get_optimizer(name)(parameters(), ademamix=True)

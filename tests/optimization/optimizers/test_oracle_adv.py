"""The factored family against adv_optm 1.1.4, dense in float64 and factored in float32.

Where adv_optm deviates from a paper, the test has an input on which both agree, and one that measures the difference.
adv_optm's constant in the arc tangent is 4 / pi, ours the paper's 1.27: the rates make up for it.
"""

from __future__ import annotations

import adv_optm
import pytest
import torch

from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES
from tests.optimization.optimizers.test_oracles import train_both as train_both_over_rates

TINY = 1e-30
OPTIONS = {
    "cautious": "cautious_mask",
    "grams": "grams_moment",
    "orthograd": "orthogonal_gradient",
    "ademamix": "use_AdEMAMix",
    "atan2": "use_atan2",
}
RATIO = 1.27 / 1.2732395


@pytest.fixture
def in_double(monkeypatch):
    """adv_optm adds up in float32, whatever the parameters are: here in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def square_parameters() -> list[torch.nn.Parameter]:
    """Of sizes that adv_optm and our storage lay out as the same matrices."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in ((6, 4), (12,), (4, 3, 4))]


def train_both(ours, mine, theirs, yours, steps=60):
    """At constant rates: adv_optm's Prodigy reads the rate of a step at the end of the step before it."""
    worst = 0.0
    for step in range(steps):
        for optimizer, params in ((ours, mine), (theirs, yours)):
            set_gradients(params, step)
            optimizer.step()
        worst = max(worst, *((a - b).abs().max().item() for a, b in zip(mine, yours, strict=True)))
    return worst


PLAIN = [
    ("adam_adv", adv_optm.AdamW_adv, {"lr": 1e-2}, {}),
    ("adam_adv", adv_optm.AdamW_adv, {"lr": 1e-3, "eps": 1e-6}, {"bias_correction": "use_bias_correction"}),
    ("adopt_adv", adv_optm.Adopt_adv, {"lr": 1e-2, "eps": TINY}, {}),
    ("lion_adv", adv_optm.Lion_adv, {"lr": 1e-2, "clip_threshold": 1.0}, {}),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "kind", "options", "off"), PLAIN, ids=lambda value: str(value)[:40])
def test_dense_equals_adv_optm(engine, weight_decay, name, kind, options, off):
    mine, yours = parameters(), parameters()
    options, second = {**options, "weight_decay": weight_decay}, {"lr": 3 * options["lr"], "weight_decay": 0.3}
    own = dict.fromkeys(off, False)
    ours = get_optimizer(name)(two_groups(mine, **second), **options, **own, state="dense", engine=engine)
    theirs = kind(two_groups(yours, **second), **options, **dict.fromkeys(off.values(), False), nnmf_factor=False)
    assert train_both_over_rates(ours, mine, theirs, yours) < 1e-12


DEFAULTS = {
    "prodigy_adv": {"d_coef": 1.0, "bias_correction": False, "safeguard_warmup": False},
    "prodigy_lion_adv": {"d_coef": 1.0, "safeguard_warmup": False},
}
"""adv_optm's, where ours are others."""
PRODIGIES = [
    ("prodigy_adv", adv_optm.Prodigy_adv, {"eps": TINY}, {}),
    ("prodigy_adv", adv_optm.Prodigy_adv, {"eps": TINY, "d_limiter": True, "growth_rate": 1.1}, {}),
    ("prodigy_adv", adv_optm.Prodigy_adv, {"eps": TINY, "safeguard_warmup": True, "beta3": 0.9}, {}),
    (
        "prodigy_adv", adv_optm.Prodigy_adv, {"eps": TINY, "d0": 1e-7, "betas": (0.99, 0.999)},
        {"simplified_ademamix": "Simplified_AdEMAMix"},
    ),
    ("prodigy_lion_adv", adv_optm.Lion_Prodigy_adv, {}, {}),
    ("prodigy_lion_adv", adv_optm.Lion_Prodigy_adv, {"d_limiter": False, "clip_threshold": 1.0, "d0": 1e-3}, {}),
]  # fmt: skip


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "kind", "options", "on"), PRODIGIES, ids=lambda value: str(value)[:40])
def test_dense_prodigies_equal_adv_optm(engine, weight_decay, name, kind, options, on):
    """adv_optm takes eps in units of the old estimate, prodigyopt and we of the new one: without eps all agree."""
    mine, yours = parameters(), parameters()
    options, second = {**options, "weight_decay": weight_decay}, {"weight_decay": 0.3}
    own = dict.fromkeys(on, True)
    ours = get_optimizer(name)(
        two_groups(mine, **second), **DEFAULTS[name] | options, **own, state="dense", engine=engine
    )
    theirs = kind(two_groups(yours, **second), **options, **dict.fromkeys(on.values(), True), slice_p=1)
    assert train_both(ours, mine, theirs, yours) < 1e-10
    assert float(ours.param_groups[0]["d"]) == pytest.approx(theirs.param_groups[0]["d"], rel=1e-10)
    assert theirs.param_groups[0]["d"] > 100 * theirs.param_groups[0]["d0"]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("bias_correction", [False, True])
def test_dense_prodigy_is_prodigy(engine, bias_correction):
    """Whose bias correction, which adv_optm does not have, equals prodigyopt's."""
    mine, yours = parameters(), parameters()
    options = {"d0": 1e-4, "d_coef": 2.0, "weight_decay": 0.1, "bias_correction": bias_correction, "engine": engine}
    ours = get_optimizer("prodigy_adv")(mine, **options, state="dense")
    assert train_both(ours, mine, get_optimizer("prodigy")(yours, **options), yours) == 0.0
    assert float(ours.param_groups[0]["d"]) > 2e-4


SHARED = [
    (name, option)
    for name, options in {
        "adam_adv": OPTIONS, "adopt_adv": OPTIONS, "prodigy_adv": OPTIONS, "lion_adv": ("cautious", "orthograd")
    }.items()
    for option in options
]  # fmt: skip
KINDS = {
    "adam_adv": adv_optm.AdamW_adv,
    "adopt_adv": adv_optm.Adopt_adv,
    "prodigy_adv": adv_optm.Prodigy_adv,
    "lion_adv": adv_optm.Lion_adv,
}


def build_both(name, option, mine, yours, weight_decay, factored, **more):
    """Ours and adv_optm's with one of the shared options, on inputs where the two mean the same."""
    ratio = RATIO if option == "atan2" else 1.0
    ratio = 1.27 * torch.pi / 4 if (name, option) == ("adopt_adv", "atan2") else ratio  # there with all digits
    lr = 1.0 if name == "prodigy_adv" else 1e-2
    common = dict(more) if name == "lion_adv" else {"eps": TINY, **more}
    extra = {"slice_p": 1} if name == "prodigy_adv" else {}
    ours = get_optimizer(name)(
        mine, lr=lr / ratio, weight_decay=weight_decay * ratio, **{option: True}, **DEFAULTS.get(name, {}) | common,
        state="factored" if factored else "dense",
    )  # fmt: skip
    theirs = KINDS[name](
        yours, lr=lr, weight_decay=weight_decay, **{OPTIONS[option]: True}, **common, **extra, nnmf_factor=factored
    )
    return ours, theirs


@pytest.mark.usefixtures("in_double")
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "option"), SHARED)
def test_shared_options_equal_adv_optm(name, option, weight_decay):
    """AdamW's atan2 and AdEMAMix agree without a first moment, where there is nothing to correct: see below."""
    mine, yours = parameters(), parameters()
    more = {"betas": (0.0, 0.999)} if name == "adam_adv" and option in ("atan2", "ademamix") else {}
    if name == "prodigy_adv":
        more["d0"] = 1e-3
    ours, theirs = build_both(name, option, mine, yours, weight_decay, False, **more)
    assert train_both(ours, mine, theirs, yours) < 1e-7


@pytest.mark.parametrize(("option", "least"), [("atan2", 1e-2), ("ademamix", 1e-4)])
def test_adv_optm_corrects_after_the_fact(option, least):
    """adv_optm multiplies the finished update by 1 / (1 - b1^t): the arc tangent is no longer bounded by lr, and the
    slow mean is corrected, which the paper leaves as its warmup. We follow the papers.
    """
    mine, yours = parameters(), parameters()
    ours, theirs = build_both("adam_adv", option, mine, yours, 0.0, False)
    set_gradients(mine, 0)
    set_gradients(yours, 0)
    before = [p.detach().clone() for p in mine]
    ours.step()
    theirs.step()
    if option == "atan2":
        assert max((p - b).abs().max() for p, b in zip(mine, before, strict=True)) <= 1e-2 / RATIO * 1.27 * torch.pi / 2
    assert train_both(ours, mine, theirs, yours) > least


FACTORED = [
    ("adam_adv", adv_optm.AdamW_adv, {"lr": 1e-2}, {}),
    ("adopt_adv", adv_optm.Adopt_adv, {"lr": 1e-2, "eps": 1e-20}, {}),
    ("lion_adv", adv_optm.Lion_adv, {"lr": 1e-2}, {}),
    ("simplified_ademamix", adv_optm.Simplified_AdEMAMix, {"lr": 1e-3}, {}),
    ("prodigy_adv", adv_optm.Prodigy_adv, {"eps": 1e-20, "d0": 1e-2}, {"slice_p": 1}),
    ("prodigy_lion_adv", adv_optm.Lion_Prodigy_adv, {"d0": 1e-2}, {"slice_p": 1}),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize(("name", "kind", "options", "extra"), FACTORED, ids=lambda value: str(value)[:40])
def test_factored_equals_adv_optm(engine, weight_decay, name, kind, options, extra):
    """To float32's precision; Prodigy from a larger start, where `p0 - p` is more than rounding."""
    mine, yours = square_parameters(), square_parameters()
    options = {**options, "weight_decay": weight_decay}
    ours = get_optimizer(name)(
        two_groups(mine, weight_decay=0.3), **DEFAULTS.get(name, {}) | options, state="factored", engine=engine
    )
    theirs = kind(two_groups(yours, weight_decay=0.3), **options, **extra, nnmf_factor=True)
    assert train_both(ours, mine, theirs, yours) < 3e-5
    sums = ours.state[mine[0]]["exp_avg.row"], theirs.state[yours[0]]["mu_m_nmf"]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "option"), [
    ("adam_adv", "cautious"), ("adam_adv", "orthograd"), ("adopt_adv", "cautious"), ("adopt_adv", "orthograd"),
    ("adopt_adv", "ademamix"), ("lion_adv", "cautious"), ("lion_adv", "orthograd"),
])  # fmt: skip
def test_factored_options_equal_adv_optm(name, option):
    mine, yours = square_parameters(), square_parameters()
    more = {} if name == "lion_adv" else {"eps": 1e-20}
    ours, theirs = build_both(name, option, mine, yours, 0.1, True, **more)
    assert train_both(ours, mine, theirs, yours) < 3e-5


def test_factored_grams_keeps_the_momentums_signs():
    """adv_optm drops them, and adds a signed gradient to a magnitude; we store them, and dense and factored agree in
    direction.
    """
    mine, yours = square_parameters(), square_parameters()
    ours, theirs = build_both("adam_adv", "grams", mine, yours, 0.0, True)
    assert train_both(ours, mine, theirs, yours) > 1e-2
    assert "exp_avg.sign" in ours.state[mine[0]]
    assert "sign" not in theirs.state[yours[0]]


def test_factored_atan2_adopt_leaves_the_gradient():
    """adv_optm squares the gradient in place as it begins, and takes its first step along the square."""
    mine, yours = square_parameters(), square_parameters()
    ours, theirs = build_both("adopt_adv", "atan2", mine, yours, 0.0, True)
    set_gradients(mine, 0)
    set_gradients(yours, 0)
    gradient = mine[0].grad.clone()
    ours.step()
    theirs.step()
    assert torch.equal(mine[0].grad, gradient)
    assert torch.equal(yours[0].grad, gradient.square())


@pytest.mark.parametrize("name", ["adam_adv", "prodigy_adv", "simplified_ademamix", "schedule_free_adamw"])
@pytest.mark.parametrize("state", ["dense", "bf16", "int8", "factored"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_keeps_its_types_and_bits_in_a_file(name, state, dtype):
    """Cast to the parameter's type, as torch does, codes and bits would be numbers and 32-bit factors 16-bit ones."""
    generator = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.randn(80, 64, generator=generator).to(dtype))
    first, second = (get_optimizer(name)([p], state=state) for _ in range(2))
    p.grad = torch.randn(80, 64, generator=generator).to(dtype)
    for _ in range(3):
        first.step()
    second.load_state_dict(first.state_dict())
    assert first.state[p].keys() == second.state[p].keys()
    for key, value in first.state[p].items():
        assert value.dtype == second.state[p][key].dtype, key
        assert torch.equal(value, second.state[p][key]), key

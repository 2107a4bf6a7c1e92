"""Adafactor against transformers', and convolution kernels against the paper's matrix, in float64."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch

import ava.optimization
from ava.errors import InputError
from ava.optimization import SchedulerFactory, get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES

each_engine = pytest.mark.parametrize("engine", ENGINES)


def flat_parameters():
    """Matrices and vectors: where transformers factors the same dimensions."""
    return [p for p in parameters() if p.ndim < 3]


def train_both(ours, mine, theirs, yours, steps=60):
    """Step both, over a moving learning rate where there is one; the largest difference at any step."""
    worst, bases = 0.0, [group["lr"] for group in ours.param_groups]
    for step in range(steps):
        for optimizer, params in ((ours, mine), (theirs, yours)):
            set_gradients(params, step)
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = None if base is None else base * (1 + math.sin(step))
            optimizer.step()
        worst = max(worst, *((a - b).abs().max().item() for a, b in zip(mine, yours, strict=True)))
    return worst


RATES = [{"lr": None, "warmup_init": False}, {"lr": None, "warmup_init": True}, {"lr": 1e-2, "warmup_init": False}]
VARIANTS = [
    {**rate, "beta1": beta1, "weight_decay": wd, "scale_parameter": scale, "clip_threshold": clip}
    for rate, beta1, wd, scale, clip in itertools.product(
        RATES, (None, 0.9), (0.0, 0.1), (False, True), (1.0, 0.3)
    )
]  # fmt: skip


@each_engine
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_adafactor_equals_transformers(engine, variant):
    transformers = pytest.importorskip("transformers")
    mine, yours = flat_parameters(), flat_parameters()
    second = {"decay_rate": -0.5, "eps": (1e-4, 1e-1)}
    ours = get_optimizer("adafactor")(two_groups(mine, **second), **variant, engine=engine)
    theirs = transformers.Adafactor(two_groups(yours, **second), **variant, relative_step=variant["lr"] is None)
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_engine
def test_one_group_may_have_a_rate_and_another_its_own(engine):
    transformers = pytest.importorskip("transformers")
    mine, yours = flat_parameters(), flat_parameters()
    ours = get_optimizer("adafactor")(two_groups(mine, lr=1e-2), lr=None, engine=engine)
    theirs = transformers.Adafactor(two_groups(yours, lr=1e-2, relative_step=False))
    assert train_both(ours, mine, theirs, yours) < 1e-12


@each_engine
def test_a_kernel_is_factored_as_the_matrix_of_its_outputs(engine):
    """Which is not what transformers does with its last two dimensions."""
    transformers = pytest.importorskip("transformers")
    kernel = torch.randn(4, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mine, flat, yours = (torch.nn.Parameter(kernel.clone()) for _ in range(3))
    flat = torch.nn.Parameter(kernel.reshape(4, 12).clone())
    ours = get_optimizer("adafactor")([mine], lr=None, engine=engine)
    assert train_both(ours, [mine], transformers.Adafactor([yours]), [yours], 1) > 1e-3
    mine.data.copy_(kernel)
    ours, theirs = get_optimizer("adafactor")([mine], lr=None, engine=engine), transformers.Adafactor([flat])
    for step in range(60):
        set_gradients([mine], step)
        flat.grad = mine.grad.reshape(4, 12)
        ours.step()
        theirs.step()
    torch.testing.assert_close(mine.reshape(4, 12), flat, rtol=0, atol=1e-12)
    assert ours.state[mine]["exp_avg_sq_row"].shape == (4, 1, 1, 1)
    assert ours.state[mine]["exp_avg_sq_col"].shape == (1, 3, 2, 2)


def test_state_is_two_vectors():
    params = flat_parameters()
    optimizer = get_optimizer("adafactor")(params)
    set_gradients(params, 0)
    optimizer.step()
    assert {key: v.numel() for key, v in optimizer.state[params[0]].items()} == {
        "step": 1, "exp_avg_sq_row": 5, "exp_avg_sq_col": 3,
    }  # fmt: skip
    assert set(optimizer.state[params[1]]) == {"step", "exp_avg_sq"}


@each_engine
@pytest.mark.parametrize("lr", [None, 1e-2])
def test_resume_is_bitwise(engine, lr):
    params = parameters()
    optimizer = get_optimizer("adafactor")(params, lr=lr, beta1=0.9, engine=engine)
    for step in range(6):
        if step == 3:
            twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
            twin = get_optimizer("adafactor")(twins, engine=engine)
            twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for o, ps in ((optimizer, params), (twin, twins)) if step >= 3 else ((optimizer, params),):
            set_gradients(ps, step)
            o.step()
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


def test_the_factory_class_has_its_old_spelling():
    cls = ava.optimization.AdaFactorOptimizer
    assert cls is ava.optimization.Adafactor is ava.optimization.AdafactorOptimizer
    optimizer = cls(
        parameters(), lr=None, eps=(1e-30, 1e-3), clip_threshold=1.0, decay_rate=-0.8, beta1=None, weight_decay=0.0,
        scale_parameter=True, relative_step=True, warmup_init=True,
    )  # fmt: skip
    assert optimizer.param_groups[0]["lr"] is None


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"lr": 1e-3, "relative_step": True}, "relative_step"), ({"relative_step": True}, "relative_step"),
        ({"lr": None, "relative_step": False}, "lr"), ({"lr": 1e-3, "warmup_init": True}, "warmup_init"),
        ({"lr": -1.0}, "lr"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(options, key):
    with pytest.raises(InputError) as error:
        get_optimizer("adafactor")(parameters(), **options)
    assert error.value.key == key


@pytest.mark.parametrize("schedule", ["cosine", "linear", "onecycle"])
def test_a_rate_of_its_own_cannot_be_scheduled(schedule):
    with pytest.raises(InputError, match="its own learning rate"):
        SchedulerFactory.create(schedule, get_optimizer("adafactor")(parameters(), lr=None), 10)
    SchedulerFactory.create(schedule, get_optimizer("adafactor")(parameters()), 10)


def test_a_constant_schedule_leaves_it_alone():
    optimizer = get_optimizer("adafactor")(parameters(), lr=None)
    scheduler = SchedulerFactory.create("constant", optimizer, 10)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is None
    assert math.isnan(scheduler.get_last_lr()[0])
    with pytest.raises(InputError, match="its own learning rate"):
        SchedulerFactory.create("constant", optimizer, 10, warmup_steps=3)

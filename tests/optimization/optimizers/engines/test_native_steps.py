"""The native engine from step to step: what moves, is replaced, or lies in memory in another way."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.optimizers.engines.native import engine as native
from tests.optimization.optimizers.engines.twins import (
    CHANGES,
    LARGE,
    SMALL,
    STEPS,
    Twins,
    gradient,
    has_compiler,
    names_of,
    options_of,
    values,
)

pytestmark = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler: the native engine is never used")


@pytest.mark.parametrize("name", ["adamw", "lion", "prodigy", "adafactor", "sgd"])
@pytest.mark.parametrize("state", ["dense", "int8", "factored"])
def test_scaled_gradients_and_skipped_steps(name, state, spoken):
    twins = Twins(name, SMALL + LARGE[1:], state=state, **options_of(name))
    for step in range(8):
        before = [p.detach().clone() for p in twins.sides[0][0]]
        twins.step(step, scale=2.0 ** (10 - step), skip=step in (0, 5))
        if step in (0, 5):
            assert all(torch.equal(p, b) for p, b in zip(twins.sides[0][0], before, strict=True))
    assert names_of(spoken) == {"native"}
    twins.check(1e-12 if state == "dense" else 1e-6, flips=0 if state == "dense" else 1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "prodigy", "lamb", "rmsprop", "adopt"])
def test_hyperparameters_move_between_steps(name, spoken):
    """A schedule changes numbers, which must not build anything anew; a decay of 0 leaves its word out."""
    twins = Twins(name, SMALL, **options_of(name))
    for step in range(12):
        for optimizer in twins.optimizers:
            for group in optimizer.param_groups:
                group.update({k: v for k, v in CHANGES.get(step, {}).items() if k in group})
        twins.step(step)
    assert names_of(spoken) == {"native"}
    twins.check(1e-12)


def test_a_schedule_builds_no_kernel():
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = get_optimizer("adamw")([p])
    p.grad = torch.ones(3)
    optimizer.step()
    known = len(native._KERNELS)
    for step in range(5):
        optimizer.param_groups[0].update(lr=10.0**-step, betas=(0.5, 0.9 + 0.01 * step), eps=10.0 ** -(step + 3))
        optimizer.step()
    assert len(native._KERNELS) == known


def transposed():
    return torch.nn.Parameter(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double().t())


def channels_last():
    value = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    return torch.nn.Parameter(value.to(memory_format=torch.channels_last))


@pytest.mark.parametrize("make", [transposed, channels_last])
@pytest.mark.parametrize("is_dense_gradient", [True, False])
@pytest.mark.parametrize("options", [{}, {"state": "factored"}, {"centralise": True}], ids=lambda o: "".join(o))
def test_other_memory_layouts(make, is_dense_gradient, options):
    p, q, plain = make(), make(), torch.nn.Parameter(make().detach().contiguous())
    pairs = [
        (x, get_optimizer("adamw")([x], engine=engine, **options))
        for x, engine in ((p, "auto"), (q, "reference"), (plain, "auto"))
    ]
    for step in range(5):
        for x, optimizer in pairs:
            x.grad = torch.empty_like(x).copy_(gradient(x, step))
            if not is_dense_gradient:
                x.grad = x.grad.contiguous()
            optimizer.step()
    torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p.detach(), plain.detach(), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("bad", ["expanded", "strided", "storage"])
def test_a_later_gradient_of_another_layout(bad, spoken):
    """What was checked in the first step is checked in every one."""
    twins = Twins("adamw", ((6, 4),), grouped=False)
    twins.step(0)
    for params, optimizer in twins.sides:
        p = params[0]
        if bad == "expanded":
            p.grad = torch.ones(1, 4, dtype=p.dtype).expand(6, 4)
        elif bad == "strided":
            p.grad = torch.arange(48.0, dtype=p.dtype).view(6, 8)[:, ::2]
        else:
            p.data = p.detach().t().contiguous().t()
            p.grad = torch.ones(6, 4, dtype=p.dtype)
        optimizer.step()
    assert [name for name, _ in spoken] == ["native", "reference"]
    twins.step(2)
    twins.check(1e-12)


def test_state_and_parameters_may_be_replaced():
    """A loaded state dict, `p.data = ...` and a parameter without a gradient leave no stale address behind."""
    twins = Twins("adamw", SMALL, grouped=False).train(2)
    for step in range(3, 8):
        for params, optimizer in twins.sides:
            if step == 3:
                optimizer.load_state_dict(optimizer.state_dict())
            if step == 4:
                params[0].data = params[0].detach().clone() * 2
            if step == 5:
                optimizer.state[params[1]]["exp_avg"] = torch.ones_like(params[1])
            for number, p in enumerate(params):
                p.grad = None if (step, number) in {(5, 0), (6, 3)} else gradient(p, step)
            if step == 7:
                optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3, dtype=torch.float64))]})
                params += optimizer.param_groups[-1]["params"]
                params[-1].grad = torch.ones(3, dtype=torch.float64)
            optimizer.step()
    twins.check(1e-12)


@pytest.mark.parametrize("name", ["prodigy", "prodigy_adv", "prodigy_lion_adv", "lamb"])
def test_sums_over_groups_and_types(name, spoken):
    """One sum over all parameters, in however many batches they come."""
    results = []
    for engine in ("auto", "reference"):
        wide = [torch.nn.Parameter(value) for value in values(((37, 1009), (5,)), torch.float64)]
        narrow = [torch.nn.Parameter(value) for value in values(((11, 3), (0,)), torch.float32)]
        transposed_ = torch.nn.Parameter(torch.ones(4, 6, dtype=torch.float64).t())
        groups = [{"params": [*wide, *narrow]}, {"params": [transposed_], "lr": 0.5}]
        optimizer = get_optimizer(name)(groups, lr=1.0 if name != "lamb" else 1e-2, engine=engine)
        for step in range(STEPS):
            for p in (*wide, *narrow, transposed_):
                p.grad = 3 * gradient(p, step)
            optimizer.step()
        results.append([*wide, *narrow, transposed_])
    assert names_of(spoken) == {"native", "reference"}  # the transposed one is the reference's
    for p, q in zip(*results, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["adafactor"])
def test_rows_and_columns(name, spoken):
    """State of a row's or column's length, of matrices with one row, one column, and kernels."""
    shapes = ((1, 1), (1, 9), (9, 1), (64, 1025), (3, 2, 5), (2049, 17))
    twins = Twins(name, shapes, weight_decay=0.1).train()
    assert names_of(spoken) == {"native"}
    (ours, optimizer), _ = twins.sides
    assert optimizer.state[ours[3]]["exp_avg_sq_row"].numel() == 64
    twins.check(1e-12)


def test_numbers_that_are_not_finite_stay_where_they_are(spoken):
    """Without a guard a NaN is the user's to see; it does not reach its neighbours."""
    twins = Twins("adamw", ((2000,),), grouped=False, state="bf16")
    for params, optimizer in twins.sides:
        params[0].grad = torch.ones_like(params[0])
        params[0].grad[[3, 700]] = torch.tensor([float("nan"), float("inf")], dtype=torch.float64)
        optimizer.step()
    (p, q) = (params[0] for params, _ in twins.sides)
    assert torch.equal(p.isnan(), q.isnan())
    assert set(p.isnan().nonzero().flatten().tolist()) == {3, 700}
    assert names_of(spoken) == {"native"}


def test_float16_parameters(spoken):
    twins = Twins("lion", SMALL + LARGE, torch.float16).train(3)
    assert names_of(spoken) == {"native"}
    twins.check(2**-9, flips=2e-3)


def test_a_counter_is_kept_only_where_it_is_read(spoken):
    """Rounding at random needs the step's number; the same sentence without it has a kernel of its own."""
    narrow, wide, other = (torch.nn.Parameter(torch.ones(5, dtype=d)) for d in (torch.bfloat16, *[torch.float32] * 2))
    rounding = get_optimizer("sgd")([narrow, wide], stochastic_rounding=True)
    plain = get_optimizer("sgd")([other])
    for optimizer in (rounding, plain):
        for p in (narrow, wide, other):
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert rounding.state[wide]["step"] == 1
    assert "step" not in plain.state[other]
    assert torch.equal(wide, other)
    assert names_of(spoken) == {"native"}


def test_one_batch_of_many_optimizers(spoken):
    """Optimizers with the same sentence share a kernel and nothing else."""
    first, second = Twins("adamw", SMALL, grouped=False), Twins("adamw", SMALL, grouped=False, lr=1e-2)
    for step in range(6):
        first.step(step)
        second.step(step + 100)
    first.check(1e-12)
    second.check(1e-12)


def test_unknown_engines_are_refused():
    with pytest.raises(InputError, match="engine"):
        get_optimizer("adamw")([torch.nn.Parameter(torch.ones(2))], engine="native")

"""The monitor tells what one float64 vector of all gradients would, and clips where that is due."""

import math

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ava.errors import InputError
from ava.optimization import GradientHealthMonitor

KEYS = ["has_nan", "has_inf", "norm", "mean", "std", "max", "min", "num_zeros", "sparsity"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model(torch.randn(5, 6)).square().sum().backward()
    model[0].weight.grad[3] = 0
    return model


def in_a_row(model):
    return torch.cat([p.grad.double().flatten() for p in model.parameters()])


def test_the_numbers_are_python_s_and_of_all_gradients(route, model):
    x, told = in_a_row(model), GradientHealthMonitor().check_gradients(model)
    assert list(told) == KEYS
    assert [type(value) for value in told.values()] == [bool, bool, *[float] * 5, int, float]
    wanted = [False, False, x.norm(), x.mean(), x.std(correction=0), x.max(), x.min(), (x == 0).sum(), 0]
    wanted[-1] = wanted[-2] / len(x)
    assert list(told.values()) == pytest.approx([float(value) for value in wanted], rel=1e-5)
    assert told["num_zeros"] > 0


def test_the_norm_is_told_from_before_clipping(route, model):
    x = in_a_row(model)
    told = GradientHealthMonitor(max_norm=0.5).check_gradients(model.parameters())
    assert told["norm"] == pytest.approx(x.norm().item())
    assert told["max"] == pytest.approx(x.max().item())
    torch.testing.assert_close(in_a_row(model), x * (0.5 / (x.norm() + 1e-6)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("max_norm", [None, 1e6])
def test_gradients_below_the_norm_stay_bit_for_bit(route, model, max_norm):
    before = in_a_row(model)
    GradientHealthMonitor(max_norm).check_gradients(model)
    assert torch.equal(in_a_row(model), before)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite_are_told_and_left(route, model, bad):
    before = in_a_row(model)
    model[0].bias.grad[2] = bad
    told = GradientHealthMonitor(max_norm=0.1).check_gradients(model)
    assert (told["has_nan"], told["has_inf"]) == (math.isnan(bad), math.isinf(bad))
    assert not math.isfinite(told["norm"])
    assert (in_a_row(model) == before).sum() == len(before) - 1


def test_checks_that_are_switched_off(model):
    model[0].bias.grad[:2] = torch.tensor([math.nan, math.inf])
    none = GradientHealthMonitor(nan_check=False, inf_check=False, distribution_check=False).check_gradients(model)
    assert list(none.values())[:2] == [False, False]
    assert all(math.isnan(value) for value in list(none.values())[2:])
    only = GradientHealthMonitor(nan_check=False, distribution_check=False).check_gradients(model)
    assert list(only.values())[:2] == [False, True]
    assert f"{only['mean']:.6f} {only['sparsity']:.1%}" == "nan nan%"
    both = GradientHealthMonitor(inf_check=False).check_gradients(model)
    assert (both["has_nan"], both["has_inf"], math.isnan(both["num_zeros"])) == (True, False, False)


@pytest.mark.parametrize(
    "options", [{"max_norm": 0}, {"max_norm": math.inf}, {"max_norm": True}, {"nan_check": "yes"}, {"inf_check": None}]
)
def test_options_that_cannot_be_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        GradientHealthMonitor(**options)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_gradient_scale_is_above_0(model, scale):
    with pytest.raises(InputError, match="grad_scale"):
        GradientHealthMonitor().check_gradients(model, grad_scale=scale)


def test_a_single_parameter_is_measured_and_not_its_rows(model):
    told = GradientHealthMonitor().check_gradients(model[0].weight)
    assert told["norm"] == pytest.approx(model[0].weight.grad.norm().item())


@pytest.mark.parametrize("what", [lambda model: model.named_parameters(), lambda model: None, lambda model: [1.0]])
def test_what_has_no_gradients_is_refused(model, what):
    with pytest.raises(InputError, match=r"model\.parameters\(\)"):
        GradientHealthMonitor().check_gradients(what(model))


def test_a_model_without_gradients_gives_zeros():
    told = GradientHealthMonitor(max_norm=1.0).check_gradients(nn.Linear(2, 2))
    assert list(told.values()) == [False, False, *[0] * 7]


@pytest.mark.parametrize("kind", [float, torch.tensor], ids=["float", "tensor"])
def test_a_gradient_scale_is_taken_out(route, model, kind):
    x, plain = in_a_row(model), GradientHealthMonitor().check_gradients(model)
    for parameter in model.parameters():
        parameter.grad.mul_(1024)
    told = GradientHealthMonitor(max_norm=0.5).check_gradients(model, grad_scale=kind(1024.0))
    assert list(told.values()) == pytest.approx(list(plain.values()))
    torch.testing.assert_close(in_a_row(model), 1024 * x * (0.5 / (x.norm() + 1e-6)), rtol=1e-6, atol=0)


def test_under_a_scaler(route):
    """A scaled loss whose gradients overflow: found, left alone, skipped; the next step goes on."""
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor, before, seen = GradientHealthMonitor(max_norm=1.0), model.weight.detach().clone(), []
    for size in (1e35, 1.0):
        model.zero_grad()
        loss = model(torch.full((1, 4), size)).sum()
        scaler.scale(loss).backward()
        seen.append(monitor.check_gradients(model, grad_scale=scaler.get_scale()))
        scaler.step(optimizer)
        scaler.update()
    assert [one["has_inf"] for one in seen] == [True, False]
    assert seen[1]["norm"] == pytest.approx(5**0.5)
    assert (before - model.weight.detach()).norm().item() == pytest.approx(0.1 * 2 / 5**0.5, rel=5e-3)


def test_a_training_loop_runs(route):
    torch.manual_seed(0)
    model, inputs = nn.Linear(3, 1), torch.randn(20, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    monitor = GradientHealthMonitor(max_norm=10.0, nan_check=True, inf_check=True, distribution_check=True)
    skipped, losses = 0, []
    for step in range(20):
        optimizer.zero_grad()
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        (loss * (math.nan if step == 3 else 1.0)).backward()
        health = monitor.check_gradients(model)
        if health["has_nan"] or health["has_inf"]:
            skipped += 1
            continue
        if health["norm"] > monitor.max_norm:
            assert nn.utils.get_total_norm([p.grad for p in model.parameters()]) <= 10.001
        optimizer.step()
        losses.append(loss.item())
    assert skipped == 1
    assert losses[-1] < 0.1 * losses[0]


class Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_one_by_one(route, model):
    """`tolist` of one stacked tensor is the only reading; it needs no scalar operation."""
    with Count() as count:
        GradientHealthMonitor(max_norm=0.5).check_gradients(model)
    assert count.reads == 0


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan, "1"])
def test_a_norm_that_cannot_be_is_refused(max_norm):
    with pytest.raises(InputError, match="max_norm"):
        GradientHealthMonitor(max_norm)

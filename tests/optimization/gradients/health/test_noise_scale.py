"""The noise scale, where it is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ava.errors import InputError
from ava.optimization.gradients.health.detail.noise_scale import NoiseScale, noise_scale
from ava.optimization.gradients.health.detail.small_batch import Draw, SmallBatch

FEATURES, NOISE = 20, 0.5


def regression():
    """Y = x w* + noise, x normal: at w = w* + e, G = e and tr(Sigma) = d (|e|^2 + s^2) + |e|^2."""
    torch.manual_seed(0)
    model = nn.Linear(FEATURES, 1, bias=False).double()
    error = model.weight.detach()[0].clone()  # w* is 0
    square = float(error @ error)
    return model, FEATURES * (square + NOISE**2) + square, square


def step(model, sizes):
    """One accumulated step: the squared norm of the first part's gradient sum / total, and the norm of the whole's."""
    total = sum(sizes)
    model.zero_grad()
    for index, size in enumerate(sizes):
        inputs, noise = torch.randn(size, FEATURES).double(), NOISE * torch.randn(size).double()
        loss = 0.5 * (model(inputs)[:, 0] - noise).square().sum() / total
        if index == 0:
            with SmallBatch(model.parameters()) as small:
                loss.backward()
        else:
            loss.backward()
    return Draw(small.square, sizes[0], 1 / total, model.weight.grad.norm(), total)


@pytest.mark.parametrize("sizes", [[8, 8, 8, 8], [4, 28], [24, 8]], ids=str)
def test_linear_regression(sizes):
    model, trace, square = regression()
    draws = [step(model, sizes).estimates() for _ in range(1500)]
    found_trace, found_square = (sum(part) / len(draws) for part in zip(*draws, strict=True))
    assert found_trace == pytest.approx(trace, rel=0.1)
    assert found_square == pytest.approx(square, rel=0.1)


def test_the_average_finds_the_ratio():
    model, trace, square = regression()
    noise = NoiseScale(decay=0.999)
    for _ in range(1500):
        noise.update(*step(model, [8, 24]).estimates())
    assert noise.value() == pytest.approx(trace / square, rel=0.1)


def test_exact_inverse():
    """|G_b|^2 = |G|^2 + tr / b, solved for both."""
    assert noise_scale(3 + 10 / 4, 4, 3 + 10 / 64, 64) == pytest.approx((10, 3))


@pytest.mark.parametrize(("small", "big"), [(0, 4), (4, 4), (8, 4)])
def test_sizes_that_tell_nothing(small, big):
    with pytest.raises(InputError, match="accumulate"):
        noise_scale(1.0, small, 1.0, big)


@pytest.mark.parametrize("total", [1, 3, 49, 1000])
def test_one_part_alone_is_not_known(total):
    model, _, _ = regression()
    assert step(model, [total]).estimates() is None
    assert Draw(None, 3, 1 / total, torch.tensor(1.0), total).estimates() is None
    assert Draw(torch.tensor(1.0), 3, 0.0, torch.tensor(1.0), total).estimates() is None


def test_unknown_before_the_first_and_where_noise_hides_the_gradient():
    noise = NoiseScale()
    assert noise.value() is None
    noise.update(math.nan, 1.0)
    noise.update(1.0, math.inf)
    assert noise.value() is None
    noise.update(4.0, 2.0)
    assert noise.value() == pytest.approx(2.0)  # also after one draw: the start cancels
    noise.update(4.0, -100.0)
    assert noise.value() is None


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_decay_is_checked(decay):
    with pytest.raises(InputError, match="decay"):
        NoiseScale(decay)


def test_averages_go_on_where_they_were():
    first, second = NoiseScale(), NoiseScale()
    first.update(3.0, 1.0)
    second.load_state_dict(first.state_dict())
    for noise in (first, second):
        noise.update(5.0, 0.7)
    assert first.state_dict() == second.state_dict()
    assert first.value() == second.value()


def test_only_what_the_pass_adds_is_seen():
    """Gradients that were there before, and passes outside of the context, do not count."""
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    weight.grad = torch.ones(2)
    with SmallBatch([weight]) as small:
        (weight.square().sum() / 2 + weight.sum()).backward()
    weight.sum().backward()
    assert small.square.item() == pytest.approx(16 + 25)
    assert weight.grad.tolist() == [6.0, 7.0]


def test_what_does_not_accumulate_is_not_seen():
    weight = nn.Parameter(torch.ones(2))
    with SmallBatch([weight]) as small:
        torch.autograd.grad(weight.sum(), [weight])
    assert small.square is None


def test_a_gradient_in_parts_is_not_taken_for_one():
    """Reentrant checkpoints hand a shared weight its gradient part by part."""
    layer = nn.Linear(3, 3)
    inputs = torch.randn(2, 3, requires_grad=True)
    with SmallBatch(layer.parameters()) as small:
        once = checkpoint(layer, inputs, use_reentrant=True)
        checkpoint(layer, once, use_reentrant=True).sum().backward()
    assert small.square is None


@pytest.mark.parametrize("is_compiled", [False, True], ids=["plain", "compiled"])
def test_the_whole_pass_is_seen(is_compiled):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    network = torch.compile(model, backend="eager") if is_compiled else model
    with SmallBatch(model.parameters()) as small:
        network(torch.randn(6, 4)).square().sum().backward()
    expected = sum(parameter.grad.double().square().sum().item() for parameter in model.parameters())
    assert small.square.item() == pytest.approx(expected)
    assert not any(parameter._backward_hooks for parameter in model.parameters())

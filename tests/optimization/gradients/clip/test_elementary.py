"""`norm`, `value`, `per_parameter` and `none` against torch's own functions."""

from __future__ import annotations

import pytest
import torch

from ava.optimization import get_clip


def parameters_with(scale, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.zeros(s, dtype=dtype)) for s in ((30, 20), (40,), (2, 3, 2, 2), ())]
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=generator)).to(dtype)
    return params


def compare(ours, theirs, **tolerances):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, **tolerances)


@pytest.mark.parametrize("scale", [10.0, 1e-3, 1e-9, 1e12])
@pytest.mark.parametrize("clip_norm", [1.0, 0.25])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_norm_is_torchs(scale, clip_norm, dtype):
    ours, theirs = parameters_with(scale, dtype), parameters_with(scale, dtype)
    norm = get_clip("norm")(ours, clip_norm=clip_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, clip_norm)
    loose = {"rtol": 2e-2, "atol": 0} if dtype is torch.bfloat16 else {"rtol": 1e-6, "atol": 0}
    torch.testing.assert_close(norm, expected, check_dtype=False, **loose)
    compare(ours, theirs, **loose)


@pytest.mark.parametrize("scale", [10.0, 1e-3])
def test_value_is_torchs_bit_for_bit(scale):
    ours, theirs = parameters_with(scale), parameters_with(scale)
    get_clip("value")(ours, clip_norm=0.5)
    torch.nn.utils.clip_grad_value_(theirs, 0.5)
    compare(ours, theirs, rtol=0, atol=0)


def test_value_leaves_what_is_not_a_number():
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.tensor([float("nan"), 5.0, -5.0])
    get_clip("value")([parameter])
    torch.testing.assert_close(parameter.grad, torch.tensor([float("nan"), 1.0, -1.0]), equal_nan=True)


@pytest.mark.parametrize("scale", [10.0, 1e-3])
def test_per_parameter_is_torchs_on_each(scale):
    ours, theirs = parameters_with(scale), parameters_with(scale)
    get_clip("per_parameter")(ours, clip_norm=0.5)
    for parameter in theirs:
        torch.nn.utils.clip_grad_norm_([parameter], 0.5)
    compare(ours, theirs, rtol=2e-5, atol=0)


def test_per_parameter_leaves_the_others_alone():
    params = parameters_with(1e-3)
    params[1].grad *= 1e6
    before = [p.grad.clone() for p in params]
    get_clip("per_parameter")(params)
    assert [torch.equal(p.grad, g) for p, g in zip(params, before, strict=True)] == [True, False, True, True]


def test_none_leaves_gradients():
    params = parameters_with(10.0)
    before = [p.grad.clone() for p in params]
    get_clip("none")(params)
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))

"""Clipping by the global norm, and none."""

from __future__ import annotations

import pytest
import torch

from ava.optimization import get_clip, list_clips


def parameters_with(scale):
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.zeros(s)) for s in ((3, 2), (4,), (2,))]
    for p in params[:2]:
        p.grad = scale * torch.randn(p.shape, generator=generator)
    return params


def norm_of(params):
    return torch.cat([p.grad.flatten() for p in params if p.grad is not None]).norm()


@pytest.mark.parametrize("name", list_clips())
def test_returns_the_norm_before(name):
    params = parameters_with(10.0)
    expected = norm_of(params)
    returned = get_clip(name)(params)
    assert returned.dim() == 0
    torch.testing.assert_close(returned, expected)


@pytest.mark.parametrize(("scale", "clip_norm"), [(10.0, 1.0), (10.0, 0.25), (1e-3, 1.0)])
def test_norm_scales_all_alike_and_only_down(scale, clip_norm):
    params = parameters_with(scale)
    before = [p.grad.clone() for p in params[:2]]
    factor = min(1.0, clip_norm / norm_of(params).item())
    get_clip("norm")(params, clip_norm=clip_norm)
    for p, g in zip(params, before, strict=False):
        torch.testing.assert_close(p.grad, g * factor)


def test_none_leaves_gradients():
    params = parameters_with(10.0)
    before = [p.grad.clone() for p in params[:2]]
    get_clip("none")(params)
    assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=False))


@pytest.mark.parametrize("name", list_clips())
def test_without_gradients_the_norm_is_zero(name):
    assert get_clip(name)([torch.nn.Parameter(torch.zeros(2))]) == 0

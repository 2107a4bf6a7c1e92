"""AGC against a twin that walks over the units one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ava.optimization import get_clip


def twin(weight, gradient, clip_norm=0.01, eps=1e-3):
    """The paper's equation 3, unit by unit, in float64."""
    weight, gradient = weight.detach().double(), gradient.double()
    units = [...] if weight.dim() < 2 else range(len(weight))
    out = gradient.clone()
    for unit in units:
        largest = clip_norm * max(weight[unit].norm().item(), eps)
        norm = gradient[unit].norm().item()
        if norm > largest:
            out[unit] = gradient[unit] * (largest / norm)
    return out


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.GroupNorm(1, 5), nn.Conv1d(4, 6, 2), nn.Linear(7, 4), nn.ConvTranspose2d(3, 2, 2)
    )


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-5, 1e5])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1, "eps": 0.5}], ids=["paper", "other"])
def test_equals_the_twin(scale, options):
    params = [*network().parameters(), nn.Parameter(torch.tensor(0.3))]
    for p in params:
        p.grad = scale * torch.randn(p.shape)
    expected = [twin(p, p.grad, **options) for p in params]
    get_clip("adaptive")(params, **options)
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.grad, e.float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_types(dtype):
    parameter = nn.Parameter(torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype))
    parameter.grad = torch.ones_like(parameter)
    expected = twin(parameter, parameter.grad).to(dtype)
    get_clip("adaptive")([parameter])
    torch.testing.assert_close(parameter.grad, expected)


def test_rows_whose_squares_overflow_are_clipped():
    parameter = nn.Parameter(torch.ones(2, 3))
    parameter.grad = torch.tensor([[1e30, 1e30, 1e30], [0.0, 0.0, 0.0]])
    expected = twin(parameter, parameter.grad).float()
    get_clip("adaptive")([parameter])
    torch.testing.assert_close(parameter.grad, expected)


def test_new_weights_can_leave_zero():
    parameter = nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.ones(2, 3)
    get_clip("adaptive")([parameter])
    torch.testing.assert_close(parameter.grad.norm(dim=1), torch.full((2,), 1e-5))

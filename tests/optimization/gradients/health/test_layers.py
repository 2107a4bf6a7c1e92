"""What a step did to each layer, against plain arithmetic on copies."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.gradients.health.detail.layers import LayerWatch
from ava.optimization.gradients.health.measure import measure


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_against_arithmetic(dtype, name):
    model = network(dtype)
    model(torch.randn(5, 6, dtype=dtype)).square().sum().backward()
    model[0].weight.grad[0] = 0
    gradients = {n: p.grad.double().clone() for n, p in model.named_parameters()}
    before = {n: p.detach().double().clone() for n, p in model.named_parameters()}
    optimizer = get_optimizer(name)(model.parameters(), lr=0.01)
    watch = LayerWatch(model.named_parameters(), measure(model.parameters()))
    optimizer.step()
    rows = watch.after_step().read()

    assert list(rows) == [n for n, _ in model.named_parameters()]
    for n, p in model.named_parameters():
        update = (p.detach().double() - before[n]).norm().item()
        expected = {
            "grad_norm": gradients[n].norm().item(), "weight_norm": before[n].norm().item(), "update_norm": update,
            "update_ratio": update / before[n].norm().item(),
            "zero_grads": (gradients[n] == 0).double().mean().item(),
        }  # fmt: skip
        assert rows[n] == pytest.approx(expected, rel=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert rows["0.weight"]["zero_grads"] >= 6 / 48


def test_what_has_no_gradient_or_no_weight():
    """Parameters without a gradient are left out; weights of 0 have no ratio; a step that is skipped moves nothing."""
    model = network()
    nn.init.zeros_(model[2].bias)
    model[0].weight.requires_grad_(False)
    model(torch.randn(5, 6)).sum().backward()
    rows = LayerWatch(model.named_parameters(), measure(model.parameters())).after_step().read()
    assert list(rows) == ["0.bias", "2.weight", "2.bias"]
    assert rows["2.bias"]["update_ratio"] is None
    assert rows["2.weight"]["update_norm"] == 0.0


def test_a_gradient_that_is_not_finite_is_told():
    model = network()
    model(torch.randn(5, 6)).sum().backward()
    model[2].weight.grad[0, 0] = math.nan
    rows = LayerWatch(model.named_parameters(), measure(model.parameters())).after_step().read()
    assert not math.isfinite(rows["2.weight"]["grad_norm"])
    assert math.isfinite(rows["0.weight"]["grad_norm"])


def test_gradients_that_are_used_up_are_refused():
    model = network()
    optimizer = get_optimizer("adamw")(model.parameters(), fused_backward=True)
    model(torch.randn(5, 6)).sum().backward()
    with pytest.raises(InputError, match="fused_backward"):
        LayerWatch(model.named_parameters(), optimizer.fused.measurement())


def test_half_precision_does_not_overflow():
    weight = nn.Parameter(torch.full((3000,), 6e4, dtype=torch.float16))
    weight.grad = torch.ones_like(weight)
    watch = LayerWatch([("w", weight)], measure([weight]))
    with torch.no_grad():
        weight.zero_()
    row = watch.after_step().read()["w"]
    assert row["update_norm"] == row["weight_norm"] == pytest.approx(float(torch.tensor(6e4).half()) * math.sqrt(3000))

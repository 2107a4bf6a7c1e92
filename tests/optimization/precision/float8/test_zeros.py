"""Operands of zeros: a projection that starts at zero, units that are dead, no gradient, no rows."""

import pytest
import torch
from torch import nn

from tests.optimization.precision.float8.trainings import HERE, mlp


@pytest.mark.parametrize("rows", [0, 5, 16])
@pytest.mark.parametrize("zeros", ["x", "w", "g", "xwg"])
@pytest.mark.parametrize("recipe", HERE)
def test_zeros_are_as_in_float32(recipe, zeros, rows):
    """In the first step, in which a tensor scales itself, and in those under the scales of the past."""
    model, prepared = mlp(recipe=recipe)
    if "w" in zeros:
        model.up.weight.data.zero_()
    twin = nn.Linear(32, 64)
    twin.load_state_dict(model.up.state_dict())
    for _ in range(3):
        x, g = (torch.randn(rows, size) * (name not in zeros) for name, size in (("x", 32), ("g", 64)))
        found, want = ([*_gradients(layer, x, g)] for layer in (model.up, twin))
        for one, other in zip(found, want, strict=True):
            assert one.isfinite().all()
            assert (one - other).norm() <= 0.1 * other.norm()
        prepared.step()
    if prepared.scaling is not None:
        assert prepared.scaling.scale.isfinite().all()


def _gradients(layer, x, g):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    out = layer(x)
    out.backward(g)
    return out.detach(), x.grad, layer.weight.grad

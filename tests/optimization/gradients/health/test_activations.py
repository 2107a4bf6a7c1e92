"""Statistics of activations, against the whole batch at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ava.optimization.gradients.health.detail.activations import ActivationWatch


def convnet():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 5), nn.Tanh(), nn.Linear(5, 2))


def watched(model, *batches):
    with ActivationWatch(model) as watch:
        for batch in batches:
            model(batch)
    return watch.read()


@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_micro_batches_equal_the_whole(pieces):
    model, inputs = convnet(), torch.randn(14, 2, 8, 8)
    rows = watched(model, *inputs.tensor_split(pieces))
    assert list(rows) == ["0", "1", "3", "4", "5"]
    for name, row in rows.items():
        output = model[: int(name) + 1](inputs).detach().double()
        assert row["mean"] == pytest.approx(output.mean().item(), abs=1e-6)
        assert row["std"] == pytest.approx(output.std(correction=0).item(), rel=1e-5)
        assert row["max"] == pytest.approx(output.abs().max().item(), rel=1e-6)
        assert row["dead"] == 0


class Layer(nn.Module):
    """A linear or convolution layer that hands out its input as it is, and an activation."""

    def __init__(self, activation, weighted):
        super().__init__()
        self.weighted, self.activation = weighted, activation
        nn.init.dirac_(weighted.weight) if weighted.weight.dim() > 2 else nn.init.eye_(weighted.weight)

    def forward(self, inputs):
        return self.activation(self.weighted(inputs))


UNITS = 4
PLACES = [
    pytest.param(lambda: nn.Linear(UNITS, UNITS, bias=False), (64,), -1, id="linear"),
    pytest.param(lambda: nn.Linear(UNITS, UNITS, bias=False), (8, 8), -1, id="tokens"),
    pytest.param(lambda: nn.Conv1d(UNITS, UNITS, 1, bias=False), (8, 8), 1, id="conv1d"),
    pytest.param(lambda: nn.Conv2d(UNITS, UNITS, 1, bias=False), (8, 4, 2), 1, id="conv2d"),
]


@pytest.mark.parametrize(("make", "shape", "axis"), PLACES)
@pytest.mark.parametrize(
    ("activation", "dying"),
    [
        (nn.ReLU(), -5.0), (nn.ReLU6(), -5.0), (nn.ReLU6(), 50.0), (nn.Hardtanh(0, 1), -5.0),
        (nn.Threshold(0, 0), -5.0), (nn.GELU(), -30.0), (nn.SiLU(), -60.0), (nn.Mish(), -60.0), (nn.ELU(), -30.0),
        (nn.Softplus(), -30.0),
        (nn.Tanh(), 20.0), (nn.Tanh(), -20.0), (nn.Sigmoid(), 30.0), (nn.Hardtanh(), 9.0), (nn.Hardsigmoid(), 9.0),
    ],
    ids=lambda value: value if isinstance(value, float) else type(value).__name__,
)  # fmt: skip
def test_dead_units(activation, dying, make, shape, axis):
    """One unit of four is pushed to where the activation is flat; the unit's dimension is that of the layer before."""
    torch.manual_seed(1)
    inputs = torch.randn(*shape, UNITS).movedim(-1, axis)
    inputs.select(axis, 2).add_(dying)
    rows = watched(Layer(activation, make()), inputs)
    assert rows["activation"]["dead"] == 1 / UNITS
    assert rows["weighted"]["dead"] == 0


def test_a_unit_that_woke_once_lives():
    model = Layer(nn.ReLU(), nn.Linear(UNITS, UNITS, bias=False))
    asleep = -torch.ones(6, UNITS)
    awake = asleep.clone()
    awake[3, 1] = 0.5
    assert watched(model, asleep, asleep)["activation"]["dead"] == 1.0
    assert watched(model, asleep, awake, asleep)["activation"]["dead"] == 0.75


def test_one_output_a_unit_says_nothing():
    assert watched(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(1, 3))["1"]["dead"] is None


def test_a_module_at_several_places_is_judged_over_all():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.narrow, self.wide, self.relu = nn.Linear(4, 4), nn.Linear(4, 12), nn.ReLU()

        def forward(self, inputs):
            return self.relu(self.wide(self.relu(self.narrow(inputs))) - 100)

    torch.manual_seed(0)
    assert watched(Twice(), torch.randn(50, 4))["relu"]["dead"] == 12 / 16


def test_hooks_stand_only_within_and_numbers_do_not_change():
    model, inputs = convnet(), torch.randn(4, 2, 8, 8)
    expected = model(inputs)
    with ActivationWatch(model) as watch:
        assert torch.equal(model(inputs), expected)
    assert not any(module._forward_hooks for module in model.modules())
    before = watch.read()
    model(inputs)
    assert watch.read() == before


def test_hooks_go_where_the_pass_fails():
    model = convnet()
    with pytest.raises(RuntimeError), ActivationWatch(model):
        model(torch.randn(4, 3, 8, 8))
    assert not any(module._forward_hooks for module in model.modules())


def test_recomputed_blocks_count_as_they_are():
    model, inputs = convnet(), torch.randn(4, 2, 8, 8)
    with ActivationWatch(model) as watch:
        checkpoint(model, inputs, use_reentrant=False).sum().backward()
    plain = watched(model, inputs)
    for name, row in watch.read().items():
        assert row == pytest.approx(plain[name])


def test_half_precision_in_place_and_no_layers():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(inplace=True)).bfloat16()
    rows = watched(model, torch.randn(20, 3).bfloat16())
    assert rows["0"]["mean"] != rows["1"]["mean"]
    assert watched(nn.Flatten(), torch.randn(2, 3)) == {}


def test_layers_that_did_not_run_are_left_out():
    model = convnet()
    with ActivationWatch(model) as watch:
        model[:2](torch.randn(4, 2, 8, 8))
    assert list(watch.read()) == ["0", "1"]


def test_compiled_layers_are_not_seen():
    model, inputs = convnet(), torch.randn(4, 2, 8, 8)
    compiled = torch.compile(model, backend="eager")
    expected = compiled(inputs)
    with ActivationWatch(model) as watch:
        assert torch.equal(compiled(inputs), expected)
    assert watch.read() == {}

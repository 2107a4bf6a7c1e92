"""The layers against float32, and in everything that is done with a layer."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ava.errors import InputError
from ava.optimization.precision.float8.formats import FORMATS
from tests.optimization.precision.float8.trainings import HERE, MLP, mlp

BOUND = {"e4m3": 0.08, "hybrid": 0.11, "e5m2": 0.13}
"""Relative error of a result in norm: half of 2^-3 (e4m3) or of 2^-2 (e5m2) per element, some averaged away."""


def inputs(*shape, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), **options)


def results(model, x):
    """Output and all gradients, of a loss whose gradient differs in every element."""
    x = x.detach().requires_grad_()
    model.zero_grad()
    out = model(x)
    out.float().square().mean().backward()
    return {"output": out, "input": x.grad} | {name: p.grad for name, p in model.named_parameters()}


class FirstRows(nn.Module):
    """A model's outputs for the first rows of its input."""

    def __init__(self, model, rows):
        super().__init__()
        self.model, self.rows = model, rows

    def forward(self, x):
        return self.model(x)[: self.rows]

    def named_parameters(self, *args, **options):
        return self.model.named_parameters(*args, **options)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("fp8_format", FORMATS)
@pytest.mark.parametrize("recipe", HERE)
def test_near_float32(recipe, fp8_format, autocast):
    """15 rows, which is no multiple of 16; with delayed scaling the second step is under the first one's scales."""
    model, prepared = mlp(recipe=recipe, fp8_format=fp8_format)
    plain = MLP()
    plain.load_state_dict(model.state_dict())
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found, wanted = results(model, inputs(5, 3, 32)), results(plain, inputs(5, 3, 32))
        prepared.step()
    assert found["output"].dtype == (torch.bfloat16 if autocast else torch.float32)
    for name, want in wanted.items():
        error = ((found[name].float() - want.float()).norm() / want.float().norm()).item()
        assert error < BOUND[fp8_format], name
        assert error > 1e-3, f"{name} is no FP8"


@pytest.mark.parametrize("recipe", HERE)
def test_parameters_and_state_dict_are_plain(recipe):
    torch.manual_seed(0)
    plain = MLP()
    names, identities = list(plain.state_dict()), [id(p) for p in plain.parameters()]
    model, prepared = mlp(recipe=recipe)
    assert list(model.state_dict()) == names
    assert all(type(value) is torch.Tensor for value in model.state_dict().values())
    plain.load_state_dict(model.state_dict())
    parameters = [id(p) for p in model.parameters()]
    prepared.step()
    assert [id(p) for p in model.parameters()] == parameters
    assert len(identities) == len(parameters)
    assert all(isinstance(model.get_submodule(name), nn.Linear) for name in prepared.layers)


@pytest.mark.parametrize("recipe", HERE)
def test_rows_of_padding_change_nothing(recipe):
    """17 rows, and the same with 15 rows of zeros behind them, whose outputs nothing asks for."""
    model, _ = mlp(recipe=recipe)
    for name in ("up", "down"):
        model.get_submodule(name).bias.data.zero_()
    found = results(model, inputs(17, 32))
    padded = torch.cat([inputs(17, 32), torch.zeros(15, 32)])
    want = results(FirstRows(model, 17), padded)
    for name in ("output", "up.weight", "down.weight"):
        torch.testing.assert_close(found[name], want[name], rtol=1e-6, atol=1e-6)


def test_evaluation_records_nothing():
    model, _ = mlp(recipe="delayed")
    with torch.no_grad():
        model(inputs(16, 32))
    model.eval()
    model(inputs(16, 32)).sum().backward()
    assert not model.up.scaling.amax.any()


@pytest.mark.parametrize("fp8_format", FORMATS)
def test_gradients_flow_in_evaluation_mode_too(fp8_format):
    model, _ = mlp(recipe="delayed", fp8_format=fp8_format)
    model.eval()
    model(inputs(16, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_a_layer_used_twice_records_its_larger_input():
    model, _ = mlp(recipe="delayed")
    x = inputs(16, 32)
    (model.up(x) + model.up(3 * x)).sum().backward()
    assert model.up.scaling.amax[model.up.row, 0] == 3 * x.abs().max()


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("recipe", HERE)
def test_checkpointing_changes_nothing(recipe, use_reentrant):
    x = inputs(16, 32)
    model, _ = mlp(recipe=recipe)
    again, _ = mlp(recipe=recipe)
    forward = again.forward
    again.forward = lambda x: checkpoint(forward, x, use_reentrant=use_reentrant)
    for name, want in results(model, x).items():
        assert torch.equal(results(again, x)[name], want), name
    if recipe == "delayed":
        assert torch.equal(again.up.scaling.amax, model.up.scaling.amax)


def test_weights_in_bf16_get_gradients_in_bf16():
    model, _ = mlp(recipe="delayed")
    model.to(torch.bfloat16)
    found = results(model, inputs(16, 32, dtype=torch.bfloat16))
    assert {value.dtype for value in found.values()} == {torch.bfloat16}


@pytest.mark.parametrize("recipe", HERE)
def test_no_rows_at_all(recipe):
    """An expert that no token was sent to."""
    model, _ = mlp(recipe=recipe)
    found = results(model, torch.zeros(0, 3, 32))
    assert found["output"].shape == (0, 3, 16)
    assert found["up.weight"].shape == (64, 32)


@pytest.mark.parametrize("recipe", HERE)
def test_a_copy_has_weights_and_scales_of_its_own(recipe):
    model, _ = mlp(recipe=recipe)
    twin = copy.deepcopy(model)
    twin.up.weight.data.mul_(2)
    found, want = results(twin, inputs(15, 32)), results(model, inputs(15, 32))
    assert not torch.allclose(found["output"], want["output"])
    assert found["up.weight"] is twin.up.weight.grad is not model.up.weight.grad
    if recipe == "delayed":
        assert twin.up.scaling is twin.down.scaling is not model.up.scaling


def test_infinity_is_not_hidden_by_saturation():
    model, _ = mlp(recipe="delayed")
    x = inputs(16, 32)
    x[3, 4] = torch.inf
    assert model(x).isnan().all()


def trained(steps, start=None):
    """The MLP after some steps, beginning with what `trained` gave before."""
    model, prepared = mlp(recipe="delayed", interval=2, margin=1, history=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    if start is not None:
        for part, state in zip((model, optimizer, prepared), start, strict=True):
            part.load_state_dict(copy.deepcopy(state))
    for step in steps:
        torch.manual_seed(step)
        optimizer.zero_grad()
        (model(torch.randn(16, 32) * (1 + step)) - 1).square().mean().backward()
        optimizer.step()
        prepared.step()
    return [part.state_dict() for part in (model, optimizer, prepared)]


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_continuing_is_bitwise_the_same(cut):
    whole = trained(range(6))
    resumed = trained(range(cut, 6), trained(range(cut)))
    assert all(torch.equal(resumed[0][name], value) for name, value in whole[0].items())
    assert torch.equal(resumed[2]["history"], whole[2]["history"])
    assert torch.equal(resumed[2]["scale"], whole[2]["scale"])
    without = trained(range(cut, 6), [*trained(range(cut))[:2], mlp(recipe="delayed", history=4)[1].state_dict()])
    assert not torch.equal(without[0]["up.weight"], whole[0]["up.weight"])


def test_saved_scales_do_not_fit_a_dynamic_recipe():
    pytest.importorskip("torchao")
    dynamic = mlp(recipe="tensorwise")[1]
    dynamic.load_state_dict({})
    with pytest.raises(InputError, match="recipe=delayed"):
        dynamic.load_state_dict(mlp(recipe="delayed")[1].state_dict())


def test_columns_count_what_saturates_and_what_becomes_zero():
    model, prepared = mlp(recipe="delayed")
    assert prepared.columns() == {}
    x = inputs(16, 32)
    results(model, x)
    prepared.step()
    assert prepared.columns()["fp8/saturated"] == 0
    results(model, 100 * x)
    first = prepared.columns()
    assert 0 < first["fp8/saturated"] < 1
    assert 0 <= first["fp8/underflow"] < 0.1
    prepared.step()
    results(model, x)
    prepared.step()
    assert prepared.columns()["fp8/underflow"] >= 0
    assert prepared.columns() == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
@pytest.mark.parametrize("recipe", HERE)
def test_compiled_is_as_eager(recipe):
    """One graph, no recompilation, and what the backward pass records is there."""
    import torch._dynamo

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, prepared = mlp(recipe=recipe)
    compiled_of, twin = mlp(recipe=recipe)
    compiled = torch.compile(compiled_of, fullgraph=True)
    for step in range(4):
        model.zero_grad(), compiled_of.zero_grad()
        for part in (model, compiled):
            (part(inputs(16, 32)) * (1 + step)).square().sum().backward()
        torch.testing.assert_close(compiled_of.up.weight.grad, model.up.weight.grad)
        if recipe == "delayed":
            torch.testing.assert_close(compiled_of.up.scaling.amax, model.up.scaling.amax)
        prepared.step(), twin.step()
        twin.columns()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1

"""Training with rounded weights: an ordinary model from outside, and afterwards what it was trained to be."""

import copy

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import ModelQuantizer, convert_qat, prepare_qat
from ava.optimization.precision.quantization.qat import without_rounding
from ava.optimization.precision.quantization.report import output_error
from tests.optimization.precision.quantization.models import Tied, mlp
from tests.optimization.precision.quantization.test_quantizer import INPUTS

weights = pytest.mark.parametrize("weight", ["int8", "int4", "int2"])


@weights
def test_names_parameters_and_random_numbers_stay(weight):
    model = mlp()
    kept, state, random = dict(model.named_parameters()), list(model.state_dict()), torch.get_rng_state()
    assert prepare_qat(model, weight) == ["0", "3"]
    assert torch.equal(torch.get_rng_state(), random)
    assert list(model.state_dict()) == state
    assert all(parameter is kept[name] for name, parameter in model.named_parameters())


@weights
def test_gradients_pass_through_the_rounding(weight):
    plain, model = mlp(), mlp()
    prepare_qat(model, weight)
    for one in (plain, model):
        one(INPUTS).square().mean().backward()
    ours, theirs = model[0].weight.grad.flatten(), plain[0].weight.grad.flatten()
    assert torch.cosine_similarity(ours, theirs, dim=0) > {"int8": 0.99, "int4": 0.9, "int2": 0.3}[weight]


@weights
@torch.no_grad()
def test_the_converted_model_computes_what_was_trained(weight):
    model = mlp()
    prepare_qat(model, weight)
    with torch.enable_grad():
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(INPUTS).square().mean().backward()
            optimizer.step()
    before = copy.deepcopy(model.state_dict())
    converted = convert_qat(model, weight)
    assert output_error(model(INPUTS), converted(INPUTS)) < {"int8": 0.03, "int4": 0.02, "int2": 1e-6}[weight]
    assert output_error(without_rounding(model)(INPUTS), converted(INPUTS)) > 1e-3
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert type(model[0]).__name__ == "FakeQuantizedLinear"


@weights
def test_a_tied_head_is_left_alone(weight):
    model = Tied()
    assert prepare_qat(model, weight) == ["inner"]
    assert type(model.head) is nn.Linear
    assert model.head.weight is model.embedding.weight


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_quantizer_prepares_and_converts(bits):
    model = mlp().train()
    quantizer = ModelQuantizer(model, "qat", bits, evaluate=lambda m: {"mean": float(m(INPUTS).mean())})
    to_train = quantizer.quantize()
    assert to_train is not model
    assert to_train.training
    assert type(model[0]) is nn.Linear
    quantizer.convert(to_train)
    before, after = quantizer.report.metrics["mean"]
    with torch.no_grad():
        assert before == float(to_train.eval()(INPUTS).mean())  # as it was trained, rounding included
    assert after == pytest.approx(before, abs=0.02)
    assert quantizer.report.size[1] < 0.3 * quantizer.report.size[0]


def test_only_a_model_that_was_prepared_for_these_weights_is_converted():
    quantizer = ModelQuantizer(mlp(), "qat", 8)
    prepared = quantizer.quantize()
    for convert in (quantizer.convert, lambda model: convert_qat(model, "int8")):
        with pytest.raises(InputError, match="never prepared"):
            convert(mlp())
    with pytest.raises(InputError, match="prepared for int8, not for int4"):
        convert_qat(prepared, "int4")
    with pytest.raises(InputError, match="only qat"):
        ModelQuantizer(mlp()).convert(prepared)


@weights
@torch.no_grad()
def test_a_layer_under_two_names_rounds_under_both(weight):
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh())
    model.append(model[0])
    prepare_qat(model, weight)
    assert model[0] is model[2]
    converted = convert_qat(model, weight)
    assert converted[0] is converted[2]
    assert type(converted[0]) is not nn.Linear
    assert output_error(model(INPUTS), converted(INPUTS)) < 0.03
    assert type(without_rounding(model)[2]) is nn.Linear


@pytest.mark.parametrize(
    ("model", "weight", "words"),
    [
        (mlp, "int3", "int8, int4, int2"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3)), "int8", "nothing to quantize"),
        (lambda: nn.Sequential(nn.Linear(10, 10)), "int4", "Use 8 bits"),
        (lambda: nn.Linear(64, 64), "int8", "nn.Sequential"),
    ],
    ids=["weights", "no linear layer", "too narrow", "a layer alone"],
)
def test_what_cannot_be_is_refused(model, weight, words):
    with pytest.raises(InputError, match=rf"^precision\.qat={weight}: .*{words}"):
        prepare_qat(model(), weight)


@pytest.mark.parametrize("weight", ["int8", "int4"])
def test_a_layer_of_one_input_stays_in_training_and_in_conversion(weight):
    """The rounding in training cannot take rows of one number."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 16))
    assert prepare_qat(model, weight) == ["2"]
    model(torch.randn(8, 1)).sum().backward()
    converted = convert_qat(model, weight)
    assert type(converted[0]) is nn.Linear
    assert type(converted[2]) is not nn.Linear


def test_training_with_2_bits_beats_rounding_to_them_afterwards():
    """The same start and number of steps: only the rounding in training differs."""
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(256, 64, generator=generator)
    targets = torch.tanh(inputs @ torch.randn(64, 32, generator=generator) / 8)
    losses = {}
    for name in ("control", "qat"):
        model = mlp().train()
        if name == "qat":
            prepare_qat(model, "int2")
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(60):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        quantized = convert_qat(model, "int2") if name == "qat" else ModelQuantizer(model, bits=2).quantize()
        with torch.no_grad():
            losses[name] = float(nn.functional.mse_loss(quantized(inputs), targets))
    assert losses["qat"] < 0.9 * losses["control"]

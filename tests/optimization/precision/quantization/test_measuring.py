"""What is measured is measured on copies: the caller's model, loader and random numbers stay as they were."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ava.errors import InputError
from ava.optimization import ModelQuantizer
from tests.optimization.precision.quantization.models import mlp
from tests.optimization.precision.quantization.test_quantizer import INPUTS


@dataclass
class Output:
    logits: torch.Tensor
    loss: Any = None


class Wrapped(nn.Module):
    """Gives its outputs in some other form; takes them by name."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = mlp(), wrap

    def forward(self, values, shift=None):
        outputs = self.net(values)
        return self.wrap(outputs if shift is None else outputs + shift)


class Noisy(nn.Module):
    """Counts its calls and draws random numbers in each."""

    def __init__(self):
        super().__init__()
        self.net = mlp()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls += 1
        return self.net(inputs) + 0 * torch.randn(32)


FORMS = {
    "dataclass": Output,
    "namespace": lambda x: SimpleNamespace(logits=x),
    "nested": lambda x: {"a": [Output(x)], "b": (None, SimpleNamespace(c=x))},
    "tuple": lambda x: (x, 3),
}


@pytest.mark.parametrize("wrap", FORMS.values(), ids=FORMS.keys())
def test_the_error_of_outputs_in_any_form(wrap):
    made = ModelQuantizer(Wrapped(wrap), example_inputs=INPUTS)
    made.quantize()
    plain = ModelQuantizer(mlp(), example_inputs=INPUTS)
    plain.quantize()
    assert made.report.output_error == pytest.approx(plain.report.output_error, rel=1e-6)


def test_outputs_without_tensors_have_no_error():
    made = ModelQuantizer(Wrapped(lambda x: x.tolist()), example_inputs=INPUTS)
    made.quantize()
    assert made.report.output_error is None
    assert "no tensors" in str(made.report)


EXAMPLES = {
    "tensor": INPUTS,
    "tuple": (INPUTS, torch.ones(16, 32)),
    "dict": {"values": INPUTS},
    "dict of two": {"values": INPUTS, "shift": torch.ones(())},
}


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples_may_be(example):
    made = ModelQuantizer(Wrapped(Output), example_inputs=example)
    made.quantize()
    assert 0 < made.report.output_error < 0.03
    assert set(made.report.latency_ms) == {1, 64}


LOADERS = {
    "dicts": lambda: [{"values": INPUTS, "shift": torch.ones(16, 32)}],
    "generator": lambda: (INPUTS for _ in range(3)),
    "generator of dicts": lambda: ({"values": INPUTS} for _ in range(3)),
}


@pytest.mark.parametrize("loader", LOADERS.values(), ids=LOADERS.keys())
def test_the_first_calibration_batch_is_the_example(loader):
    made = ModelQuantizer(Wrapped(Output), "static", calibration_loader=loader())
    made.quantize()
    assert 0 < made.report.output_error < 0.03
    assert set(made.report.latency_ms) == {1, 64}


def test_what_was_not_measured_is_said():
    made = ModelQuantizer(mlp())
    made.quantize()
    assert "not measured" in str(made.report)


def test_arguments_that_the_model_does_not_take_are_refused():
    with pytest.raises(InputError, match="unexpected keyword argument 'labels'"):
        ModelQuantizer(Wrapped(Output), example_inputs={"values": INPUTS, "labels": INPUTS}).quantize()


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_buffers_random_numbers_and_the_loader_stay(kind):
    data = DataLoader(TensorDataset(INPUTS), batch_size=4, shuffle=True)
    passes = []

    class Loader:
        def __iter__(self):
            passes.append(1)
            return iter(data)

    model = Noisy()
    made = ModelQuantizer(model, kind, calibration_loader=Loader(), evaluate=lambda m: {"x": m(INPUTS).sum()})
    random = torch.get_rng_state()
    quantized = made.quantize()
    assert torch.equal(random, torch.get_rng_state())
    assert passes == [1]
    assert float(model.calls) == float(quantized.calls) == 0
    assert made.report.metrics["x"][0] != made.report.metrics["x"][1]


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_an_evaluation_that_ends_in_training_mode_changes_no_mode(mode, inplace):
    model = mlp().train(mode)
    model[0].eval()

    def evaluate(one):
        model.train()
        one.train()
        return {"loss": torch.tensor(1.0)}

    quantized = ModelQuantizer(model, evaluate=evaluate, example_inputs=INPUTS, inplace=inplace).quantize()
    assert not any(module.training for module in quantized.modules())
    if not inplace:
        assert [module.training for module in model.children()] == [False, mode, mode, mode]
        assert model.training == mode


@pytest.mark.parametrize("found", [3.0, None, {"a": "text"}], ids=["number", "nothing", "text"])
def test_metrics_that_are_no_numbers_by_name_are_refused(found):
    with pytest.raises(InputError, match=r"evaluate=.*return \{'loss'|evaluate=.*Write `lambda model: \{'loss'"):
        ModelQuantizer(mlp(), evaluate=lambda model: found).quantize()


class Reader(nn.Module):
    """Reads the weight of `a`, which it also calls, and no tensor of `b`."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, inputs):
        return nn.functional.linear(self.b(self.a(inputs)).to(self.a.weight.dtype), self.a.weight)


@pytest.mark.parametrize(("kind", "bits"), [("dynamic", 8), ("static", 8), ("dynamic", 4), ("dynamic", 2)])
def test_a_layer_whose_weight_the_model_reads_itself_stays(kind, bits):
    model = Reader()
    made = ModelQuantizer(model, kind, bits, [INPUTS] if kind == "static" else None, example_inputs=INPUTS)
    made.quantize()
    assert made.report.layers == ("b",)
    assert "reads itself" in made.report.skipped["a"]
    assert type(model.a) is nn.Linear
    assert set(vars(model.a)) == set(vars(nn.Linear(2, 2)))


def test_a_model_that_reads_a_weight_and_gave_no_example_is_told_the_remedy():
    with pytest.raises(InputError, match=r"fails where the model itself does not.*'weight'.*example_inputs"):
        ModelQuantizer(Reader(), evaluate=lambda m: {"x": m(INPUTS).sum()}).quantize()

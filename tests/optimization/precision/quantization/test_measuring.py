"""What is measured is measured on copies: the caller's model, loader and random numbers stay as they were."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from ava.errors import InputError
from ava.optimization import ModelQuantizer
from ava.optimization.precision.quantization.report import output_error, percent
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


class Recurrent(nn.Module):
    """(B, T, 8) and a state whose second dimension is B -> (B, T, 64)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.head = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 64)

    def forward(self, values, state):
        return self.head(self.lstm(values, state)[0])


class Fixed(nn.Module):
    """Takes 16 samples or 1."""

    def __init__(self):
        super().__init__()
        self.net = mlp()
        self.register_buffer("shift", torch.zeros(16, 64))

    def forward(self, inputs):
        return self.net(inputs + self.shift)


def encoder(batch_first: bool) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=batch_first)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=batch_first).eval()


MASK = nn.Transformer.generate_square_subsequent_mask(7)
OF_ONE_SIZE = {
    "sequence first": (lambda: encoder(False), {"src": torch.ones(7, 3, 64), "mask": MASK}, set()),
    "state": (Recurrent, {"values": torch.ones(3, 5, 8), "state": (torch.zeros(1, 3, 16),) * 2}, set()),
    "fixed": (Fixed, {"inputs": INPUTS}, {1}),
}


@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize(("model", "example", "sizes"), OF_ONE_SIZE.values(), ids=OF_ONE_SIZE.keys())
def test_calls_that_no_other_batch_fits_have_no_latency(model, example, sizes, kind):
    made = ModelQuantizer(model(), kind, calibration_loader=[example] * 2 if kind == "static" else None)
    made.example_inputs = example
    made.quantize()
    assert set(made.report.latency_ms) == sizes
    assert "Latency at batch 64 was not measured" in str(made.report)
    assert 0 < made.report.output_error < 0.03


def test_padding_in_a_fused_encoder_is_no_error_of_rounding():
    padding = torch.zeros(3, 7, dtype=torch.bool)
    padding[1, 3:] = True
    torch.manual_seed(0)
    example = {"src": torch.randn(3, 7, 64), "src_key_padding_mask": padding}
    made = ModelQuantizer(encoder(True), example_inputs=example)
    made.quantize()
    assert 0 < made.report.output_error < 0.01


ONE, MINUS = torch.ones(2), torch.tensor([1.0, -torch.inf])
PAIRS = {
    "integers": ((ONE, torch.tensor([10000])), (1.1 * ONE, torch.tensor([10000])), 0.1),
    "logits": ({"logits": ONE, "hidden": 9 * ONE}, {"logits": 1.1 * ONE, "hidden": 9 * ONE}, 0.1),
    "logits of an object": (Output(ONE, 9 * ONE), Output(1.1 * ONE, 9 * ONE), 0.1),
    "cache": ({"last": ONE, "past_key_values": (9 * ONE,)}, {"last": 1.1 * ONE, "past_key_values": ()}, 0.1),
    "same infinity": (MINUS, torch.tensor([1.1, -torch.inf]), 0.1),
    "same nan": (torch.tensor([1.0, torch.nan]), torch.tensor([1.1, torch.nan]), 0.1),
    "only integers": (torch.tensor([1]), torch.tensor([1]), None),
}


@pytest.mark.parametrize(("before", "after", "error"), PAIRS.values(), ids=PAIRS.keys())
def test_the_error_counts(before, after, error):
    assert output_error(before, after) == (None if error is None else pytest.approx(error, rel=1e-5))


def test_a_nan_that_rounding_made_counts():
    assert not output_error(ONE, torch.tensor([1.0, torch.nan])) < 1


def test_random_numbers_of_python_and_numpy_stay():
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, inputs):
            return self.net(inputs) + 0 * random.random() * np.random.rand()

    python, arrays = random.getstate(), np.random.get_state()
    ModelQuantizer(Drawing(), example_inputs=INPUTS).quantize()
    assert random.getstate() == python
    assert np.array_equal(np.random.get_state()[1], arrays[1])
    assert np.random.get_state()[2] == arrays[2]


def test_a_model_that_is_quantized_already_is_refused():
    made = ModelQuantizer(mlp(), inplace=True)
    made.quantize()
    with pytest.raises(InputError, match="quantized already"):
        made.quantize()


@pytest.mark.parametrize("kind", ["dynamic", "qat"])
def test_a_pruned_model_is_told_the_remedy(kind):
    model = mlp()
    prune.l1_unstructured(model[0], "weight", 0.5)
    with pytest.raises(InputError, match=r"prune\.remove.*remove_weight_norm"):
        ModelQuantizer(model, kind).quantize()


def test_saving_where_there_is_no_directory_is_refused(tmp_path):
    made = ModelQuantizer(mlp())
    made.quantize()
    with pytest.raises(InputError, match="No such file"):
        made.save(tmp_path / "absent" / "a.safetensors")


@pytest.mark.parametrize(("bits", "backend"), [(8, "auto"), (8, "torchao"), (4, "auto"), (2, "auto")])
def test_integers_are_refused_as_a_linear_layer_refuses_them(bits, backend):
    quantized = ModelQuantizer(mlp(), bits=bits, backend=backend).quantize()
    with pytest.raises(RuntimeError, match=r"floating-point inputs, not torch\.int64"):
        quantized(torch.ones(2, 64, dtype=torch.int64))


@pytest.mark.parametrize(
    ("share", "words"), [(0.613, "61.3%"), (0.0005, "0.05%"), (0.0, "0.0%")], ids=["large", "small", "none"]
)
def test_small_shares_are_not_rounded_to_nothing(share, words):
    assert percent(share) == words


def test_the_report_says_first_that_most_stays():
    made = ModelQuantizer(nn.Sequential(nn.Embedding(1000, 64), mlp()))
    made.quantize()
    assert str(made.report).splitlines()[1].startswith("Only ")

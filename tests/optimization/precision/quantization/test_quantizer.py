"""ModelQuantizer: near the model, smaller, said by whom, and never touching what it was given."""

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import ModelQuantizer
from ava.optimization.precision.quantization.report import output_error
from tests.optimization.precision.quantization.models import Tied, mlp

INPUTS = torch.randn(16, 64, generator=torch.Generator().manual_seed(1))
WAYS = {
    "int8 dynamic, torch.ao": ("dynamic", 8, "torch.ao", 0.03, 0.30),
    "int8 dynamic, torchao": ("dynamic", 8, "torchao", 0.03, 0.30),
    "int8 static, torch.ao": ("static", 8, "torch.ao", 0.03, 0.30),
    "int8 static, torchao": ("static", 8, "torchao", 0.03, 0.30),
    "int4": ("dynamic", 4, "auto", 0.2, 0.20),
    "int2": ("dynamic", 2, "auto", 0.9, 0.16),
}
ways = pytest.mark.parametrize(("kind", "bits", "backend", "error", "size"), WAYS.values(), ids=WAYS.keys())


def quantizer(model, kind, bits, backend, **options):
    loader = [INPUTS] if kind == "static" else None
    return ModelQuantizer(model, kind, bits, loader, backend=backend, **options)


@ways
@torch.no_grad()
def test_outputs_are_near_and_the_size_is_small(kind, bits, backend, error, size):
    model = mlp()
    made = quantizer(model, kind, bits, backend)
    outputs = made.quantize()(INPUTS)
    assert outputs.dtype == torch.float32
    assert 0 < output_error(model(INPUTS), outputs) < error
    before, after = made.report.size
    assert after / before < size
    assert made.report.backend == made.backend == {"auto": {4: "torchao", 2: "torch"}.get(bits)}.get(backend, backend)
    assert made.backend in str(made.report)


@ways
def test_the_callers_model_is_not_touched(kind, bits, backend, error, size):
    model = mlp().train()
    model[2].eval()
    kept = copy.deepcopy(model)
    quantized = quantizer(model, kind, bits, backend, example_inputs=INPUTS, evaluate=lambda m: {}).quantize()
    assert [type(m) for m in model.modules()] == [type(m) for m in kept.modules()]
    assert [m.training for m in model.modules()] == [m.training for m in kept.modules()]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), kept.parameters(), strict=True))
    assert not {id(p) for p in quantized.parameters()} & {id(p) for p in model.parameters()}
    assert not any(m.training for m in quantized.modules())


@ways
@torch.no_grad()
def test_in_place_is_the_same_in_the_model_itself(kind, bits, backend, error, size):
    expected = quantizer(mlp(), kind, bits, backend).quantize()(INPUTS)
    model = mlp()
    assert quantizer(model, kind, bits, backend, inplace=True).quantize() is model
    assert torch.equal(model(INPUTS), expected)


@ways
@torch.no_grad()
def test_inputs_of_any_shape_and_type(kind, bits, backend, error, size):
    quantized = quantizer(mlp(), kind, bits, backend).quantize()
    assert torch.equal(quantized(INPUTS.view(2, 8, 64)).flatten(0, 1), quantized(INPUTS))
    assert quantized(INPUTS[0]).shape == (32,)
    halved = copy.deepcopy(quantized)
    assert halved[0](INPUTS.bfloat16()).dtype == torch.bfloat16


@ways
@torch.no_grad()
def test_a_single_layer_is_a_model_too(kind, bits, backend, error, size):
    layer = nn.Linear(64, 32)
    made = quantizer(layer, kind, bits, backend)
    assert output_error(layer(INPUTS), made.quantize()(INPUTS)) < error
    with pytest.raises(InputError, match="in place"):
        quantizer(layer, kind, bits, backend, inplace=True).quantize()


@pytest.mark.parametrize("bits", [8, 4, 2])
@torch.no_grad()
def test_a_tied_head_stays_tied(bits):
    tokens = torch.randint(0, 48, (3, 5), generator=torch.Generator().manual_seed(0))
    model = Tied()
    made = ModelQuantizer(model, bits=bits, example_inputs=tokens)
    quantized = made.quantize()
    assert quantized.head.weight is quantized.embedding.weight
    assert torch.equal(quantized.head.weight, model.head.weight)
    assert "head" in made.report.skipped
    assert made.report.size[0] == sum(p.numel() * 4 for p in model.parameters())  # the tied weight counts once
    assert made.report.size[1] < made.report.size[0]


@torch.no_grad()
def test_a_shared_layer_stays_shared():
    layer = nn.Linear(64, 64)
    quantized = ModelQuantizer(nn.Sequential(layer, nn.Tanh(), layer)).quantize()
    assert quantized[0] is quantized[2]
    assert quantized[0] is not layer


@pytest.mark.parametrize(("kind", "bits", "backend"), [way[:3] for way in WAYS.values()], ids=WAYS.keys())
@torch.no_grad()
def test_torchs_fused_encoder_does_not_read_past_the_layers(kind, bits, backend):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    inputs = INPUTS.view(2, 8, 64)
    loader = [inputs] if kind == "static" else None
    made = ModelQuantizer(model, kind, bits, loader, backend=backend)
    quantized = made.quantize()
    assert len(made.report.layers) == 4
    assert output_error(model(inputs), quantized(inputs)) < {8: 0.02, 4: 0.1, 2: 0.5}[bits]
    assert model.layers[0].activation_relu_or_gelu


def test_the_report_has_latency_error_and_the_callers_metrics():
    model = mlp()
    made = ModelQuantizer(model, example_inputs=INPUTS, evaluate=lambda m: {"mean": float(m(INPUTS).mean())})
    made.quantize()
    report = made.report
    assert set(report.latency_ms) == {1, 64}
    assert all(before > 0 and after > 0 for before, after in report.latency_ms.values())
    assert 0 < report.output_error < 0.03
    with torch.no_grad():
        assert report.metrics["mean"][0] == float(model(INPUTS).mean())
    assert {row[""] for row in report.rows()} >= {"size, MB", "ms at batch 1", "ms at batch 64", "mean"}


def test_a_small_share_is_said():
    model = nn.Sequential(nn.Conv2d(1, 64, 8), nn.Flatten(), nn.Linear(64, 10))
    made = ModelQuantizer(model)
    made.quantize()
    assert made.report.share < 0.2
    assert "Only" in made.report.notes[0]


BATCHES = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, torch.zeros(len(x))),
    "list": lambda x: [x, torch.zeros(len(x))],
    "inputs": lambda x: {"inputs": x, "targets": torch.zeros(len(x))},
    "keywords": lambda x: {"input": x},
}


@pytest.mark.parametrize("wrap", BATCHES.values(), ids=BATCHES.keys())
@torch.no_grad()
def test_calibration_batches_may_be(wrap):
    quantized = ModelQuantizer(mlp(), "static", calibration_loader=[wrap(INPUTS)]).quantize()
    assert output_error(mlp()(INPUTS), quantized(INPUTS)) < 0.03


@torch.no_grad()
def test_static_rounds_by_the_calibrated_range():
    """Inputs far beyond it are cut, which dynamic quantization does not do."""
    fixed = ModelQuantizer(mlp(), "static", calibration_loader=[INPUTS]).quantize()
    free = ModelQuantizer(mlp(), "dynamic").quantize()
    far = 20 * INPUTS
    assert output_error(mlp()[0](far), fixed[0](far)) > 0.5
    assert output_error(mlp()[0](far), free[0](far)) < 0.03


def test_a_layer_that_calibration_does_not_reach_stays():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, inputs):
            return self.used(inputs)

    made = ModelQuantizer(Half(), "static", calibration_loader=[INPUTS])
    made.quantize()
    assert made.report.layers == ("used",)
    assert "not called" in made.report.skipped["unused"]
    assert made.report.share == pytest.approx(0.5, abs=0.01)


REFUSED = {
    "type": ({"quantization_type": "dynamc"}, "Did you mean `dynamic`"),
    "bits": ({"bits": 3}, "8, 4 or 2"),
    "no calibration": ({"quantization_type": "static"}, "calibration_loader=null: static .* needs data"),
    "empty calibration": ({"quantization_type": "static", "calibration_loader": []}, "gave no batch"),
    "strange batch": ({"quantization_type": "static", "calibration_loader": ["text"]}, "no input that is a tensor"),
    "static 4": ({"quantization_type": "static", "bits": 4, "calibration_loader": [INPUTS]}, "bits=8"),
    "infinite": ({"quantization_type": "static", "calibration_loader": [INPUTS / 0]}, "not finite"),
    "backend": ({"backend": "torchoa"}, "Did you mean `torchao`"),
    "4 bits by torch.ao": ({"backend": "torch.ao", "bits": 4}, "does not run int4"),
    "group": ({"bits": 4, "group_size": 48}, "128, 64, 32"),
    "group of rows": ({"bits": 8, "group_size": 32}, "one scale"),
    "no type": ({"quantization_type": None}, "quantization_type=null"),
    "bits as a float": ({"bits": 8.0}, "8, 4 or 2"),
    "loader": ({"quantization_type": "static", "calibration_loader": 5}, "iterable of batches"),
    "batches": ({"calibration_batches": -3}, "at least 1"),
    "example": ({"example_inputs": 3}, "tuple of positional"),
    "evaluate": ({"evaluate": 3}, "function of a model"),
    "qat backend": ({"quantization_type": "qat", "backend": "bogus"}, "backend=bogus"),
    "qat 4 bits by torch.ao": ({"quantization_type": "qat", "backend": "torch.ao", "bits": 4}, "does not run int4"),
    "2 bits by torchao": ({"backend": "torchao", "bits": 2}, "no kernel for 2 bits"),
}


@pytest.mark.parametrize(("options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        ModelQuantizer(mlp(), **options).quantize()


def test_what_is_no_model_is_refused():
    with pytest.raises(InputError, match="model=str"):
        ModelQuantizer("model")


SHAPES = {"none": (64,), "rows": (5, 64), "three": (2, 3, 64), "four": (2, 2, 2, 64), "empty": (0, 64)}


@ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@torch.no_grad()
def test_every_shape_and_type_has_a_result(kind, bits, backend, error, size, dtype):
    torch.manual_seed(0)
    layer = nn.Linear(64, 32).to(dtype)
    loader = [INPUTS.to(dtype)] if kind == "static" else None
    quantized = ModelQuantizer(layer, kind, bits, loader, backend=backend).quantize()
    for shape in SHAPES.values():
        inputs = INPUTS.flatten()[: math.prod(shape)].view(shape).to(dtype)
        outputs = quantized(inputs)
        assert outputs.dtype == dtype
        assert outputs.shape == (*shape[:-1], 32)
        assert output_error(layer(inputs), outputs) < 1.2 * error


@pytest.mark.parametrize(("bits", "backend"), [(8, "torch.ao"), (8, "torchao"), (4, "auto")])
def test_training_a_quantized_layer_is_an_error(bits, backend):
    quantized = ModelQuantizer(nn.Linear(64, 32), bits=bits, backend=backend).quantize()
    with pytest.raises(RuntimeError, match=r"does not require grad|not implemented"):
        quantized(INPUTS.clone().requires_grad_()).sum().backward()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@ways
@torch.no_grad()
def test_an_encoder_that_is_given_padding(kind, bits, backend, error, size):
    """Torch's encoder reads float weights there too, to see whether nested tensors would be faster."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 2).eval()
    inputs, padding = INPUTS.view(2, 8, 64), torch.arange(8).expand(2, 8) > 5
    batch = {"src": inputs, "src_key_padding_mask": padding}
    made = ModelQuantizer(model, kind, bits, [batch] if kind == "static" else None, backend=backend)
    outputs = made.quantize()(**batch)
    assert len(made.report.layers) == 4
    assert output_error(model(**batch)[:, :6], outputs[:, :6]) < 2 * error


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weights_that_are_not_finite_are_refused(bits):
    model = mlp()
    model[3].weight.data[0, 0] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        ModelQuantizer(model, bits=bits).quantize()


def test_without_torchao_4_bits_name_the_command():
    """In a process of its own, where torchao cannot be imported; int8 needs none of it."""
    code = (
        "import sys, torch; sys.modules['torchao'] = None\n"
        "from ava.optimization import ModelQuantizer\n"
        "layer = torch.nn.Linear(64, 32)\n"
        "print(ModelQuantizer(layer).quantize()(torch.ones(1, 64)).shape)\n"
        "ModelQuantizer(layer, bits=4).quantize()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=100)
    assert "torch.Size([1, 32])" in done.stdout
    assert "InputError" in done.stderr
    assert "pip install 'ava[quant]'" in done.stderr

"""What is written is read back to the same outputs, and nothing else is."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ava.errors import InputError
from ava.optimization import ModelQuantizer, load_quantized
from ava.optimization.precision.quantization.file import write_model
from tests.optimization.precision.quantization.models import Tied, mlp
from tests.optimization.precision.quantization.test_quantizer import INPUTS, quantizer, ways


@ways
@torch.no_grad()
def test_the_model_that_is_read_is_the_one_that_was_written(tmp_path, kind, bits, backend, error, size):
    made = quantizer(mlp(), kind, bits, backend)
    quantized = made.quantize()
    made.save(tmp_path / "m.safetensors")
    fresh = mlp()
    for parameter in fresh.parameters():
        nn.init.zeros_(parameter)
    read = load_quantized(fresh, tmp_path / "m.safetensors", backend=backend)
    assert torch.equal(read(INPUTS), quantized(INPUTS))
    on_disk = (tmp_path / "m.safetensors").stat().st_size
    assert made.report.size[1] <= on_disk < made.report.size[1] + 4000


@torch.no_grad()
def test_a_file_serves_either_backend(tmp_path):
    made = ModelQuantizer(mlp(), backend="torch.ao")
    expected = made.quantize()(INPUTS)
    made.save(tmp_path / "m.safetensors")
    other = load_quantized(mlp(), tmp_path / "m.safetensors", backend="torchao")
    torch.testing.assert_close(other(INPUTS), expected, rtol=0, atol=0.05)


@torch.no_grad()
def test_a_tied_weight_is_stored_once_and_tied_again(tmp_path):
    made = ModelQuantizer(Tied())
    quantized = made.quantize()
    made.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert "head.weight" not in file.keys()  # noqa: SIM118
    fresh = Tied()
    nn.init.zeros_(fresh.embedding.weight)
    read = load_quantized(fresh, tmp_path / "m.safetensors")
    assert read.head.weight is read.embedding.weight
    tokens = torch.arange(48).view(2, 24)
    assert torch.equal(read(tokens), quantized(tokens))


@torch.no_grad()
def test_a_model_that_is_not_quantized_is_written_bit_for_bit(tmp_path):
    model = Tied()
    write_model(tmp_path / "m.safetensors", model, {}, None)
    fresh = Tied()
    nn.init.zeros_(fresh.inner.weight)
    read = load_quantized(fresh, tmp_path / "m.safetensors").state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("backend", ["torch.ao", "torchao"])
@torch.no_grad()
def test_a_state_dict_keeps_the_quantized_weights(tmp_path, backend):
    """Loaded with weights_only, into another quantized copy."""
    quantized = ModelQuantizer(mlp(), backend=backend).quantize()
    other = mlp()
    nn.init.normal_(other[0].weight)
    other = ModelQuantizer(other, backend=backend).quantize()
    torch.save(quantized.state_dict(), tmp_path / "m.pt")
    other.load_state_dict(torch.load(tmp_path / "m.pt", weights_only=True))
    assert torch.equal(other(INPUTS), quantized(INPUTS))


def test_another_model_is_refused(tmp_path):
    made = ModelQuantizer(mlp())
    made.quantize()
    made.save(tmp_path / "m.safetensors")
    for other in (mlp(width=32), Tied(), nn.Sequential(*mlp(), nn.Linear(32, 2))):
        with pytest.raises(InputError, match=r"m\.safetensors"):
            load_quantized(other, tmp_path / "m.safetensors")


def test_what_is_no_such_file_is_refused(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"a": torch.ones(1)}, tmp_path / "new.safetensors", {"ava": json.dumps({"format": 99})})
    for name in ("plain", "text", "new", "absent"):
        with pytest.raises(InputError, match=f"{name}.safetensors"):
            load_quantized(mlp(), tmp_path / f"{name}.safetensors")


def test_nothing_is_saved_before_quantizing(tmp_path):
    with pytest.raises(InputError, match="quantize"):
        ModelQuantizer(mlp()).save(tmp_path / "m.safetensors")


class Shared(nn.Module):
    """One layer under two names, and one block of it under two."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = self.a
        self.block = nn.Sequential(nn.Linear(64, 64))
        self.again = self.block

    def forward(self, inputs):
        return self.again(self.block(self.b(self.a(inputs))))


@ways
@torch.no_grad()
def test_a_layer_under_two_names_is_stored_once(tmp_path, kind, bits, backend, error, size):
    made = quantizer(Shared(), kind, bits, backend)
    quantized = made.quantize()
    assert quantized.a is quantized.b
    assert made.report.size[0] == 2 * 4 * (64 * 64 + 64)
    assert made.report.size[1] < 0.32 * made.report.size[0]
    made.save(tmp_path / "m.safetensors")
    read = load_quantized(Shared(), tmp_path / "m.safetensors", backend=backend)
    assert torch.equal(read(INPUTS), quantized(INPUTS))


def test_what_is_no_tensor_is_not_dropped(tmp_path):
    class Keeping(nn.Sequential):
        def get_extra_state(self):
            return {"k": 3}

        def set_extra_state(self, state):
            pass

    made = ModelQuantizer(Keeping(nn.Linear(64, 64)))
    made.quantize()
    with pytest.raises(InputError, match="_extra_state of the model is no tensor but a dict"):
        made.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"device": "bogus"}, "no device is called that"), ({"device": "cuda:99"}, "no such GPU"),
     ({"backend": "bogus"}, "holds no quantized layers")],
    ids=["device", "absent device", "backend"],
)  # fmt: skip
def test_what_cannot_run_it_is_refused(tmp_path, options, words):
    write_model(tmp_path / "m.safetensors", mlp(), {}, None)
    with pytest.raises(InputError, match=words):
        load_quantized(mlp(), tmp_path / "m.safetensors", **options)


@pytest.mark.parametrize("about", ["{}", "[1]", "3", '{"format": 1, "scheme": 5, "layers": [], "aliases": {}}'])
def test_a_file_that_says_nonsense_of_itself_is_refused(tmp_path, about):
    save_file({"a": torch.ones(1)}, tmp_path / "m.safetensors", {"ava": about})
    with pytest.raises(InputError, match=r"m\.safetensors holds no quantized model"):
        load_quantized(mlp(), tmp_path / "m.safetensors")

"""Which layers are quantized, and what is said of the others."""

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization.precision.quantization.selection import choose_group_size, select
from tests.optimization.precision.quantization.models import Tied, mlp


class Scaled(nn.Linear):
    def forward(self, inputs):
        return 2 * super().forward(inputs)


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as GPT-2 has them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))


def hooked():
    layer = nn.Linear(64, 64)
    layer.register_forward_hook(lambda *_: None)
    return layer


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: Scaled(64, 64), "is a Scaled"),
        (hooked, "has hooks"),
        (lambda: nn.Linear(1, 64), "has 1 input"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)), "is a ParametrizedLinear"),
    ],
    ids=["subclass", "hooks", "one input", "parametrized"],
)
def test_what_computes_otherwise_stays(layer, reason):
    found = select(nn.Sequential(nn.Linear(64, 64), layer()), 8, None)
    assert found.chosen == ("0",)
    assert reason in found.skipped["1"]


def test_a_head_that_is_tied_to_the_embedding_stays():
    found = select(Tied(), 8, None)
    assert found.chosen == ("inner",)
    assert "shares its weight" in found.skipped["head"]
    assert found.share == pytest.approx(64 * 64 / (64 * 64 + 64 + 48 * 64))


def test_a_layer_used_twice_is_one_layer():
    layer = nn.Linear(64, 64)
    assert select(nn.Sequential(layer, nn.ReLU(), layer), 8, None).chosen == ("0",)


@pytest.mark.parametrize(
    ("bits", "widths", "size"),
    [(8, (64, 128), None), (4, (128, 256), 128), (4, (128, 192), 64), (4, (100, 128), 32), (2, (128, 256), 32)],
)
def test_the_group_fits_the_widths(bits, widths, size):
    assert choose_group_size(nn.Sequential(*(nn.Linear(width, 16) for width in widths)), bits) == size


def test_widths_that_fit_no_group_stay():
    found = select(nn.Sequential(nn.Linear(128, 100), nn.Linear(100, 64), nn.Linear(64, 16)), 4, 32)
    assert found.chosen == ("2",)
    assert "100 outputs" in found.skipped["0"]
    assert "100 inputs" in found.skipped["1"]


@pytest.mark.parametrize(
    ("model", "bits", "group", "words"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)),
            8,
            None,
            "1 layer of Conv2d, and only nn.Linear",
        ),
        (lambda: nn.Sequential(nn.LSTM(4, 4), nn.LSTM(4, 4)), 8, None, r"2 layers of LSTM.*build it with nn\.Linear"),
        (lambda: nn.Sequential(Conv1D(), Conv1D()), 8, None, r"2 layers of Conv1D.*nn\.Linear in the place of each"),
        (lambda: nn.Sequential(nn.ReLU()), 8, None, "no layer with weights"),
        (lambda: nn.Sequential(Scaled(4, 4)), 8, None, "its only nn.Linear, `0`, is a Scaled"),
        (lambda: nn.Linear(1, 8), 8, None, "the model itself, has 1 input"),
        (lambda: nn.Sequential(nn.Linear(10, 10)), 4, 32, "Use 8 bits"),
    ],
    ids=["convolutions", "lstm", "conv1d", "no weights", "only a subclass", "one input", "too narrow"],
)
def test_nothing_to_quantize_is_an_error(model, bits, group, words):
    with pytest.raises(InputError, match=words):
        select(model(), bits, group)


def test_the_share_counts_weights_only():
    model = mlp()
    weights = sum(layer.weight.numel() for layer in model if isinstance(layer, nn.Linear))
    assert select(model, 8, None).share == pytest.approx(weights / sum(p.numel() for p in model.parameters()))
    assert torch.is_grad_enabled()

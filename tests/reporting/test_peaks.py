"""The table of peaks: dense figures, found by the name that torch gives, and nothing guessed."""

import pytest
import torch
from torch import nn

from ava.reporting.costs import TRAINING, at_rest, count_flops
from ava.reporting.memory_by_kind import Saved, num_bytes
from ava.reporting.peaks import PEAKS, PRECISIONS, device_name, peak_flops


@pytest.mark.parametrize(
    ("name", "precision", "tflops"),
    [
        ("Tesla V100-SXM2-16GB", "fp16", 125),
        ("Tesla V100-PCIE-32GB", "fp16", 112),
        ("Tesla V100S-PCIE-32GB", "fp16", 130),
        ("Tesla T4", "int8", 130),
        ("NVIDIA A10", "bf16", 125),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312),
        ("NVIDIA A100 80GB PCIe", "tf32", 156),
        ("NVIDIA L4", "bf16", 121),
        ("NVIDIA L40S", "fp8", 733),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2),
        ("NVIDIA GeForce RTX 5090", "bf16", 209.5),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.5),
        ("NVIDIA H100 PCIe", "bf16", 756.5),
        ("NVIDIA H100 NVL", "fp8", 1670.5),
        ("NVIDIA H200", "fp8", 1979),
        ("NVIDIA H200", "fp32", 67),
        ("NVIDIA H200 NVL", "bf16", 835.5),
        ("NVIDIA GH200 480GB", "bf16", 989.5),
        ("NVIDIA B200", "bf16", 2250),
        ("NVIDIA GB200", "bf16", 2500),
        ("AMD Instinct MI250X", "bf16", 191.5),
        ("AMD Instinct MI300X", "fp8", 2614.9),
        ("AMD Instinct MI325X", "tf32", 653.7),
    ],
)
def test_a_known_device_has_its_dense_figure(name, precision, tflops):
    assert peak_flops(name, precision) == pytest.approx(tflops * 1e12)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("cpu", "fp32"),
        ("NVIDIA A10G", "bf16"),
        ("NVIDIA A100-SXM-64GB", "bf16"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("NVIDIA H20", "bf16"),
        ("NVIDIA L40", "bf16"),
        ("NVIDIA B2000", "bf16"),
        ("Tesla T4", "bf16"),
        ("Tesla V100-SXM2-16GB", "fp8"),
    ],
)
def test_what_is_not_in_the_table_is_unknown(name, precision):
    assert peak_flops(name, precision) is None


def test_a_precision_has_to_exist():
    with pytest.raises(ValueError, match="fp32, tf32, bf16"):
        peak_flops("NVIDIA H200", "fp64")


@pytest.mark.parametrize("peak", PEAKS, ids=lambda peak: peak.name)
def test_figures_are_dense_and_have_a_source(peak):
    """Halving the bits at most doubles the rate; a sparse figure among dense ones would stand out by a factor of 4."""
    assert peak.source.startswith("https://")
    assert peak.tflops.keys() <= set(PRECISIONS)
    for wide, narrow in (("tf32", "bf16"), ("bf16", "fp8"), ("fp16", "fp8")):
        if wide in peak.tflops and narrow in peak.tflops:
            assert 0.95 <= peak.tflops[narrow] / peak.tflops[wide] <= 2.1


def test_a_processor_has_a_name_without_a_peak():
    assert device_name(torch.device("cpu")) == "cpu"


class Heads(nn.Module):
    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("model", "shape", "flops"),
    [
        (nn.Linear(8, 16), (3, 8), 2 * 3 * 8 * 16),
        (nn.Conv2d(2, 4, 3, padding=1), (1, 2, 5, 6), 2 * 5 * 6 * 4 * 2 * 9),
        (Heads(), (2, 3, 7, 4), 2 * 2 * (2 * 3 * 7 * 7 * 4)),
        (nn.Embedding(10, 4), (2, 3), 0),
        (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)), (3, 8), 2 * 3 * 8 * 8),
    ],
    ids=["linear", "convolution", "attention", "embedding", "pointwise"],
)
def test_products_count_and_nothing_else(model, shape, flops):
    inputs = torch.zeros(shape, dtype=torch.int64) if isinstance(model, nn.Embedding) else torch.randn(shape)
    assert count_flops(lambda: model(inputs)) == flops
    assert TRAINING == 3


def test_a_model_at_rest_is_as_before():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with at_rest(model):
        model(torch.randn(1, 4))
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_shared_memory_counts_once():
    weight = torch.zeros(10, 10)
    assert num_bytes([weight, weight.t(), weight[3:], {"a": [torch.zeros(5, dtype=torch.int8)]}, 3.0]) == 405
    assert num_bytes([torch.eye(3).to_sparse()]) == 3 * 2 * 8 + 3 * 4


def test_what_autograd_keeps_is_followed():
    """The first layer keeps its input, tanh its output, the second layer that same output: two tensors."""
    first, second = nn.Linear(16, 32, bias=False), nn.Linear(32, 1, bias=False)
    saved = Saved([*first.parameters(), *second.parameters()])
    inputs = torch.randn(8, 16)
    for _ in range(3):
        with saved.following():
            out = second(first(inputs).tanh()).sum()
        out.backward()
    assert saved.peak == 8 * 16 * 4 + 8 * 32 * 4


def test_following_changes_no_gradient():
    model = nn.Sequential(nn.Linear(4, 8), nn.Softmax(dim=-1), nn.Linear(8, 1))
    inputs = torch.randn(5, 4)
    plain = torch.autograd.grad(model(inputs).exp().sum(), list(model.parameters()))
    with Saved(model.parameters()).following():
        out = model(inputs).exp().sum()
    assert all(
        torch.equal(a, b) for a, b in zip(plain, torch.autograd.grad(out, list(model.parameters())), strict=True)
    )

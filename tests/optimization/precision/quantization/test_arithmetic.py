"""The integers are those of torchao, and stand for weights that are as near as they can be."""

import pytest
import torch

from ava.optimization.precision.quantization.arithmetic import dequantize, pack, quantize_groups, quantize_rows, unpack
from ava.optimization.precision.torchao import import_torchao, quiet


def weight(rows=24, columns=128):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("bits", [4, 2])
def test_packing_loses_nothing(bits):
    codes = torch.randint(0, 2**bits, (5, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.shape == (5, 32 * bits // 8)
    assert torch.equal(unpack(packed, bits), codes)


def test_the_first_code_stands_in_the_lowest_bits():
    assert pack(torch.tensor([[1, 2, 3, 0]], dtype=torch.uint8), 2).item() == 0b00_11_10_01


def test_rows_are_torchaos():
    quantization = import_torchao("torchao.quantization", "the test")
    layer = torch.nn.Linear(128, 24, bias=False)
    layer.weight.data = weight()
    config = quantization.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
    with quiet():
        quantization.quantize_(holder := torch.nn.Sequential(layer), config)
    plain = quantize_rows(weight())
    assert torch.equal(plain["weight"], holder[0].weight.qdata)
    torch.testing.assert_close(plain["scale"], holder[0].weight.scale.flatten(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_error_is_at_most_half_a_step(bits):
    plain = quantize_rows(weight()) if bits == 8 else quantize_groups(weight(), bits, 32)
    step = plain["scale"].float()
    step = step[:, None] if bits == 8 else step.repeat_interleave(32, dim=1)
    # Scales of groups are bfloat16: 2^-8 of the largest multiple of them.
    slack = 1e-3 * step if bits == 8 else 2.0**-8 * (2**bits * step + weight().abs().amax())
    assert ((dequantize(plain, bits) - weight()).abs() <= step / 2 + slack).all()


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rows_without_any_spread_are_no_trouble(bits):
    flat = torch.cat([torch.zeros(2, 32), torch.full((2, 32), 0.5)])
    plain = quantize_rows(flat) if bits == 8 else quantize_groups(flat, bits, 32)
    torch.testing.assert_close(dequantize(plain, bits), flat, rtol=5e-3, atol=1e-5)

"""The parts of the transformer block against what they say they compute."""

from __future__ import annotations

import pytest
import torch

from ava.models._transformer import Attention, BlockSpec, CausalConvolution, rotate, rotation_table

CPU = torch.device("cpu")


def test_rotation_depends_on_distance_only():
    """<rotate(q, s), rotate(k, t)> is a function of t - s."""
    q, k = torch.randn(8), torch.randn(8)
    table = rotation_table(50, 8, CPU)
    turned_q = rotate(q.expand(1, 50, 1, 8), table)[0, :, 0]
    turned_k = rotate(k.expand(1, 50, 1, 8), table)[0, :, 0]
    products = turned_q @ turned_k.T
    for distance in (-7, 0, 3, 20):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(products.diagonal(0)[0], products.diagonal(3)[0])


def test_rotation_keeps_lengths_and_leaves_position_zero():
    x = torch.randn(2, 6, 3, 4)
    turned = rotate(x, rotation_table(6, 4, CPU))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 0], x[:, 0])


def test_rotation_is_the_papers_rotation():
    """Channels (j, j + D / 2) as one complex number, times exp(i t base^(-2j/D))."""
    x = torch.randn(1, 5, 1, 6, dtype=torch.float64)
    angle = torch.arange(5.0)[:, None] * 10_000.0 ** (-torch.arange(0, 6, 2) / 6)
    expected = torch.complex(x[..., :3], x[..., 3:]) * torch.polar(torch.ones_like(angle), angle)[:, None]
    turned = rotate(x, rotation_table(5, 6, CPU))
    torch.testing.assert_close(turned, torch.cat((expected.real, expected.imag), -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_softmax_of_scaled_products(causal):
    torch.manual_seed(0)
    attention = Attention(BlockSpec(width=8, heads=2, causal=causal))
    x = torch.randn(2, 5, 8)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    scores = q @ k.mT / 2.0
    if causal:
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
    expected = attention.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x), expected)


def test_normalised_queries_and_keys_ignore_the_scale_of_their_weights():
    torch.manual_seed(0)
    attention = Attention(BlockSpec(width=8, heads=2, causal=True, qk_norm=True, bias=False))
    x = torch.randn(2, 5, 8)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[:16] *= 100.0
    torch.testing.assert_close(attention(x), before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reach", [1, 3, 9])
def test_convolution_is_a_depthwise_causal_conv1d(reach):
    torch.manual_seed(0)
    layer, x = CausalConvolution(4, reach), torch.randn(2, 6, 4)
    assert torch.equal(layer(x), x)
    torch.nn.init.normal_(layer.weight)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (reach - 1, 0))
    expected = torch.nn.functional.conv1d(padded, layer.weight.flip(0).T.unsqueeze(1), groups=4).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected)

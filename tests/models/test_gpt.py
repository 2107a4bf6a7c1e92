"""The language model: sizes, what a token sees, positions, options."""

from __future__ import annotations

import pytest
import torch

from ava.data.source import TokenSpec
from ava.errors import InputError
from ava.models.gpt import GPT, PRESETS
from ava.optimization import ModelQuantizer

BYTES = TokenSpec(vocab_size=256, context=256)
SPEC = TokenSpec(vocab_size=20, context=12)


def small(spec: TokenSpec = SPEC, **options: object) -> GPT:
    torch.manual_seed(0)
    return GPT(spec, **{"layers": 2, "heads": 2, "width": 16, **options})


def count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("preset", ["1m", "3m", "10m", "30m"])
def test_byte_presets_have_the_size_of_their_name(preset):
    with torch.device("meta"):
        assert count(GPT(BYTES, preset=preset)) == pytest.approx(float(preset[:-1]) * 1e6, rel=0.05)


@pytest.mark.parametrize(
    ("preset", "published"),
    [("124m", 124_439_808), ("350m", 354_823_168), ("774m", 774_030_080), ("1558m", 1_557_611_200)],
)
def test_large_presets_are_gpt2_to_the_parameter(preset, published):
    with torch.device("meta"):
        model = GPT(TokenSpec(50_257, 1024), preset=preset, positions="learned", bias=True, tied_embeddings=True)
    assert count(model) == published


def test_every_preset_has_rotary_heads():
    assert all((p.width // p.heads) % 2 == 0 and p.width % p.heads == 0 for p in PRESETS.values())


def test_layers_heads_and_width_replace_the_preset():
    model = GPT(BYTES, preset="1m", layers=2, width=64)
    assert len(model.blocks) == 2
    assert model.embedding.weight.shape == (256, 64)
    assert model.blocks[0].attention.heads == PRESETS["1m"].heads


@pytest.mark.parametrize("options", [{}, {"positions": "learned"}, {"convolution": 3, "qk_norm": True}])
@pytest.mark.parametrize("position", [1, 6, 11])
def test_a_later_token_changes_no_earlier_logits(options, position):
    model = small(**options)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    tokens = torch.randint(0, 20, (2, 12))
    changed = tokens.clone()
    changed[:, position] = (tokens[:, position] + 1) % 20
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :position], after[:, :position], rtol=0, atol=0)
    assert not torch.allclose(before[:, position], after[:, position])
    assert not torch.allclose(before[:, -1], after[:, -1])


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_order_of_tokens_matters(positions):
    """Without positions the last token would see a set."""
    model = small(positions=positions, layers=1)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    tokens = torch.tensor([[1, 2, 3, 4], [2, 1, 3, 4]])
    last = model(tokens)[:, -1]
    assert not torch.allclose(last[0], last[1], atol=1e-4)


def test_a_shorter_sequence_is_the_beginning_of_a_longer_one():
    model, tokens = small(), torch.randint(0, 20, (2, 12))
    torch.testing.assert_close(model(tokens)[:, :5], model(tokens[:, :5]))


def test_tied_embeddings_share_storage():
    tied, free = small(tied_embeddings=True), small(tied_embeddings=False)
    assert tied.head.weight is tied.embedding.weight
    assert free.head.weight.data_ptr() != free.embedding.weight.data_ptr()
    assert count(free) - count(tied) == 20 * 16


def test_residual_projections_start_smaller():
    model = GPT(BYTES, layers=8)
    block = model.blocks[0]
    assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.attention.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert block.feedforward.out.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)


def test_it_starts_without_an_opinion():
    """At first the loss is that of a uniform guess."""
    tokens = torch.randint(0, 20, (8, 12))
    loss = torch.nn.functional.cross_entropy(small()(tokens).flatten(0, 1), tokens.roll(1, 0).flatten())
    assert loss.item() == pytest.approx(torch.tensor(20.0).log().item(), abs=0.05)


def test_dropout_acts_in_training_only():
    model, tokens = small(dropout=0.5), torch.randint(0, 20, (2, 12))
    assert not torch.allclose(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 30, "heads": 4}, "width 30 cannot be split into 4 heads"),
        ({"width": 30, "heads": 2}, "odd"),
        ({"preset": None, "layers": None}, "`layers` is null"),
        ({"preset": "2m"}, "no preset is called '2m'"),
    ],
)
def test_impossible_sizes_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)


def test_odd_heads_work_with_learned_positions():
    assert small(width=30, positions="learned")(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 20)


def test_a_sequence_beyond_the_context_is_refused():
    with pytest.raises(InputError, match="13 tokens is longer than the context of 12"):
        small()(torch.zeros(1, 13, dtype=torch.long))


@torch.no_grad()
def test_a_quantized_head_is_evaluated_in_chunks_too():
    torch.manual_seed(0)
    model = GPT(TokenSpec(vocab_size=256, context=32), preset="1m", layers=1, tied_embeddings=False)
    quantized = ModelQuantizer(model).quantize()
    tokens = torch.randint(0, 256, (2, 33))
    inputs, targets = tokens[:, :-1], tokens[:, 1:].clone()
    targets[0, :5] = -100
    expected = torch.nn.functional.cross_entropy(
        quantized(inputs).flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
    )
    torch.testing.assert_close(quantized(inputs, targets, chunk=64), expected)
    torch.testing.assert_close(quantized(inputs, targets, chunk=7), expected, rtol=1e-3, atol=0)
    with torch.enable_grad(), pytest.raises(InputError, match="has replaced"):
        quantized(inputs, targets, chunk=7)

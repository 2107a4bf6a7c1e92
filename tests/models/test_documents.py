"""Documents in one sequence: each as if it stood alone, by every way of keeping them apart."""

from __future__ import annotations

import warnings

import pytest
import torch

from ava.data.source import TokenSpec
from ava.models._documents import Layout, attend, block_mask, causal_mask, layout
from ava.models.gpt import GPT

SPEC = TokenSpec(vocab_size=20, context=24)
LENGTHS = [[5, 1, 9, 7], [24], [11, 11]]
VARIANTS = [
    {}, {"positions": "learned"}, {"convolution": 4}, {"qk_norm": True, "bias": True, "activation": "relu2"},
]  # fmt: skip


def small(**options):
    torch.manual_seed(0)
    model = GPT(SPEC, **{"layers": 2, "heads": 2, "width": 16, **options})
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model


def packed():
    """A batch with padding (-1), its documents as (row, start, stop), and a number that comes back in the first row."""
    documents, spans = torch.full((3, 24), -1, dtype=torch.int32), []
    for row, lengths in enumerate(LENGTHS):
        start = 0
        for number, length in enumerate(lengths):
            documents[row, start : start + length] = number % 2
            spans.append((row, start, start + length))
            start += length
    tokens = torch.randint(0, 20, (3, 24), generator=torch.Generator().manual_seed(1))
    return tokens, documents, spans


@pytest.mark.parametrize("options", VARIANTS, ids=["rotary", "learned", "convolution", "normalised"])
def test_each_documents_logits_and_gradients_are_those_of_the_document_alone(options):
    model, (tokens, documents, spans) = small(**options), packed()
    logits = model(tokens, documents=documents)
    alone = [model(tokens[row : row + 1, start:stop])[0] for row, start, stop in spans]
    for (row, start, stop), expected in zip(spans, alone, strict=True):
        torch.testing.assert_close(logits[row, start:stop], expected, rtol=1e-5, atol=1e-5)
    weights = [torch.randn(part.shape, generator=torch.Generator().manual_seed(2)) for part in alone]

    def gradients(parts):
        total = torch.stack([(part * w).sum() for part, w in zip(parts, weights, strict=True)]).sum()
        return torch.autograd.grad(total, list(model.parameters()))

    together = gradients([logits[row, start:stop] for row, start, stop in spans])
    for got, expected in zip(together, gradients(alone), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", VARIANTS, ids=["rotary", "learned", "convolution", "normalised"])
def test_nothing_of_another_document_comes_through_not_even_a_nan(options):
    model, (tokens, documents, spans) = small(**options), packed()
    tokens = tokens.clamp(max=18)
    before = model(tokens, documents=documents)
    row, start, stop = spans[2]
    tokens[row, start:stop] = 19
    with torch.no_grad():
        model.embedding.weight[19] = float("nan")
    after = model(tokens, documents=documents)
    elsewhere = torch.ones(3, 24, dtype=torch.bool)
    elsewhere[row, start:stop] = False
    # The output layer is tied to the embedding, so word 19 is nan everywhere.
    torch.testing.assert_close(after[elsewhere][:, :19], before[elsewhere][:, :19], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", VARIANTS, ids=["rotary", "learned", "convolution", "normalised"])
def test_one_document_a_row_is_the_plain_model(options):
    model, tokens = small(**options), packed()[0]
    one = torch.zeros(3, 24, dtype=torch.int64)
    torch.testing.assert_close(model(tokens, documents=one), model(tokens), rtol=1e-5, atol=1e-5)


def test_layout():
    documents = torch.tensor([[0, 0, 1, 0], [2, 2, 2, -1]])
    where = layout(documents, 8)
    assert where.positions.tolist() == [[0, 1, 0, 0], [0, 1, 2, 0]]
    assert where.lengths == (2, 1, 1, 3, 1)
    assert causal_mask(torch.tensor([[1, 1, 2, 3]]))[0, 0].int().tolist() == [
        [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1],
    ]  # fmt: skip


NUMBER = torch.tensor([[1] * 5 + [2] * 27, [1] * 16 + [2] * 8 + [3] * 8])


def heads():
    return torch.randn(3, 2, 4, 32, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_one_after_another_is_what_the_mask_gives():
    x = heads()
    masked = attend(*x.unbind(0), Layout(NUMBER, mask=causal_mask(NUMBER)))
    single = attend(*x.unbind(0), Layout(NUMBER, lengths=(5, 27, 16, 8, 8)))
    torch.testing.assert_close(single, masked, rtol=1e-5, atol=1e-5)
    weights = torch.randn(masked.shape, generator=torch.Generator().manual_seed(1))
    by_x = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (single, masked)]
    torch.testing.assert_close(*by_x, rtol=1e-4, atol=1e-5)


def test_flex_attention_sees_what_the_mask_lets_it_see():
    """Its kernel needs a GPU; what it computes does not."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = heads().detach().unbind(0)
    expected = attend(q, k, v, Layout(NUMBER, mask=causal_mask(NUMBER)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it should be compiled
        got = flex_attention(q, k, v, block_mask=block_mask(NUMBER))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_dropout_acts_within_documents_too():
    model, (tokens, documents, _) = small(dropout=0.3), packed()
    assert not torch.equal(model(tokens, documents=documents), model(tokens, documents=documents))
    model.eval()
    assert torch.equal(model(tokens, documents=documents), model(tokens, documents=documents))


@pytest.mark.slow
def test_compiled_it_keeps_documents_apart_without_recompiling():
    model, (tokens, documents, _) = small(convolution=2), packed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True)
        for shift in range(3):
            moved = documents.roll(shift, 0)
            torch.testing.assert_close(
                compiled(tokens, documents=moved), model(tokens, documents=moved), rtol=1e-4, atol=1e-4
            )
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled(tokens, documents=documents.roll(1, 1))

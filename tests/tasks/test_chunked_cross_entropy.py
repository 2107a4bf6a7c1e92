"""What a task asks of a model: the loss by chunks, documents kept apart, and the words where a model cannot."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ava.data.documents import of_bytes
from ava.data.packed import packed_splits
from ava.data.sequences import byte_stream, splits
from ava.data.source import Data, TokenSpec
from ava.errors import InputError
from ava.models.gpt import GPT
from ava.tasks.language_model import LanguageModel

TEXTS = [bytes(range(k, 2 * k + 3)) for k in range(1, 40)]


def data(packed=True):
    if packed:
        train, valid = packed_splits(of_bytes(TEXTS), of_bytes(TEXTS), 32, 0)
    else:
        train, valid = splits(byte_stream(TEXTS), byte_stream(TEXTS), 32, 0)
    return Data(train, valid, TokenSpec(256, 32, "byte"), "made up")


def gpt(**options):
    torch.manual_seed(0)
    return GPT(TokenSpec(256, 32, "byte"), **{"layers": 1, "heads": 2, "width": 16, **options})


def compiled(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing the compiler warns
        return torch.compile(model)


def gradients(task, model, batch):
    model.zero_grad()
    task.losses(model, batch)["loss"].backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("chunk", [1, 50, 100_000])
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "stream"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "free"])
def test_by_chunks_loss_and_gradients_are_the_same(chunk, packed, tied):
    model, given = gpt(tied_embeddings=tied), data(packed)
    batch = given.train.fetch(np.arange(3), 0)
    plain, chunked = LanguageModel(given), LanguageModel(given, chunk)
    torch.testing.assert_close(chunked.losses(model, batch)["loss"], plain.losses(model, batch)["loss"])
    for got, expected in zip(gradients(chunked, model, batch), gradients(plain, model, batch), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(chunked.evaluate(model, batch), plain.evaluate(model, batch), rtol=1e-6, atol=0.0)


def test_it_goes_with_bf16_and_recomputed_blocks():
    model, given = gpt(), data()
    recomputing = copy.deepcopy(model)
    for block in recomputing.blocks:
        block.forward = lambda *a, inner=block.forward: checkpoint(inner, *a, use_reentrant=False)
    batch = given.train.fetch(np.arange(3), 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = gradients(LanguageModel(given), model, batch)
        got = gradients(LanguageModel(given, 20), recomputing, batch)
    for one, other in zip(got, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.slow
def test_it_goes_with_the_compiler():
    model, given = gpt(), data()
    batch = given.train.fetch(np.arange(3), 0)
    task = LanguageModel(given, 20)
    expected = gradients(task, model, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = gradients(task, compiled(model), batch)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_each_packed_document_has_the_loss_it_has_alone():
    model, given = gpt(), data()
    task, split = LanguageModel(given), given.valid
    batch = split.fetch(np.arange(len(split)), 0)
    total = torch.zeros((), dtype=torch.float64)
    for text in TEXTS:
        alone = packed_splits(of_bytes(TEXTS), of_bytes([text]), 32, 0)[1].fetch(np.arange(-(-len(text) // 32)), 0)
        del alone["documents"]
        total += task.evaluate(model, alone)["loss"].detach()
    torch.testing.assert_close(task.evaluate(model, batch)["loss"].detach(), total, rtol=1e-6, atol=1e-6)


def test_drawn_targets_come_from_documents_kept_apart():
    model, given = gpt(), data()
    batch = given.train.fetch(np.arange(3), 0)
    generator = torch.Generator().manual_seed(0)
    loss = LanguageModel(given, 16).sampled_losses(model, batch, generator)["loss"]
    assert torch.isfinite(loss)
    assert loss.item() / int((batch["targets"] >= 0).sum()) == pytest.approx(np.log(256), rel=0.02)


class Plain(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(256, 256)

    def forward(self, inputs):
        return self.table(inputs)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize(
    ("packed", "chunk", "message"),
    [
        (True, 0, r"Plain would let documents .* no `documents` \(B, T\).*data\.packing=stream"),
        (False, 8, r"task\.chunked_loss=8: Plain cannot .*`targets` \(B, T\) and `chunk`.*task\.chunked_loss=0"),
    ],
    ids=["documents", "chunks"],
)
def test_a_model_that_cannot_is_refused(wrapped, packed, chunk, message):
    given = data(packed)
    task, batch = LanguageModel(given, chunk), given.train.fetch(np.arange(2), 0)
    model = compiled(Plain()) if wrapped else Plain()
    with pytest.raises(InputError, match=message):
        task.check_model(model)
    for use in (task.losses, task.evaluate):
        with pytest.raises(InputError, match=message):
            use(model, batch)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "stream"])
def test_a_model_that_can_is_accepted(packed):
    LanguageModel(data(packed), 8).check_model(gpt())
    LanguageModel(data(False)).check_model(Plain())


def test_an_output_layer_that_was_replaced_is_not_gone_around():
    model, given = gpt(tied_embeddings=False), data(False)

    class Other(torch.nn.Linear):
        pass

    model.head = Other(16, 256)
    with pytest.raises(InputError, match=r"task\.chunked_loss=8.*Other has replaced.*task\.chunked_loss=0"):
        LanguageModel(given, 8).losses(model, given.train.fetch(np.arange(2), 0))


def test_only_all_logits_have_second_derivatives():
    assert LanguageModel(data()).twice_differentiable
    assert not LanguageModel(data(), 8).twice_differentiable

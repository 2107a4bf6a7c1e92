"""Language modelling: values worked out by hand, and data that does not fit."""

from __future__ import annotations

import math

import pytest
import torch

from ava.data.source import Data, ImageSpec, TokenSpec
from ava.errors import InputError
from ava.tasks.language_model import LanguageModel


def _task(unit="byte") -> LanguageModel:
    return LanguageModel(Data([], [], TokenSpec(4, 3, unit), "none"))


class Uniform(torch.nn.Module):
    def forward(self, inputs):
        return torch.zeros(*inputs.shape, 4)


def test_padding_counts_for_nothing():
    batch = {"inputs": torch.zeros(2, 3, dtype=torch.int64), "targets": torch.tensor([[0, 1, 2], [3, -100, -100]])}
    task = _task()
    assert task.count(batch) == 4
    assert float(task.losses(Uniform(), batch)["loss"]) == pytest.approx(4 * math.log(4))
    sums = {name: float(value) for name, value in task.evaluate(Uniform(), batch).items()}
    assert sums == pytest.approx({"loss": 4 * math.log(4), "count": 4})
    assert task.summarise(sums) == pytest.approx({"eval/loss": math.log(4), "eval/bits_per_byte": 2})


def test_tokens_are_told_in_bits_per_token():
    task = _task("token")
    assert task.monitor == "eval/bits_per_token"
    expected = {"eval/loss": math.log(8), "eval/bits_per_token": 3, "eval/perplexity": 8}
    assert task.summarise({"loss": 5 * math.log(8), "count": 5}) == pytest.approx(expected)


@pytest.mark.parametrize(("loss", "perplexity"), [(1e4, math.inf), (math.inf, math.inf), (math.nan, math.nan)])
def test_a_loss_out_of_hand_is_still_reported(loss, perplexity):
    assert _task("token").summarise({"loss": loss, "count": 1})["eval/perplexity"] == pytest.approx(
        perplexity, nan_ok=True
    )


def test_images_are_refused():
    with pytest.raises(InputError, match=r"needs data described by TokenSpec, not by ImageSpec\. Use data=stdlib"):
        LanguageModel(Data([], [], ImageSpec(1, 8, 8, 10), "images"))

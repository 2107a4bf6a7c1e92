"""Classification: values worked out by hand, and data that does not fit."""

from __future__ import annotations

import math

import pytest
import torch

from ava.data.source import Data, ImageSpec, TokenSpec
from ava.errors import InputError
from ava.tasks.classification import Classification


class Logits(torch.nn.Module):
    def forward(self, inputs):
        return inputs


DATA = Data(train=[], valid=[], spec=ImageSpec(1, 1, 1, 2), description="none")
BATCH = {"inputs": torch.tensor([[0.0, math.log(3)], [math.log(3), 0.0]]), "targets": torch.tensor([1, 1])}


def test_values():
    task = Classification(DATA)
    assert float(task.losses(Logits(), BATCH)["loss"]) == pytest.approx(-math.log(3 / 4) - math.log(1 / 4))
    sums = {name: float(value) for name, value in task.evaluate(Logits(), BATCH).items()}
    assert task.summarise(sums) == pytest.approx({"eval/loss": math.log(16 / 3) / 2, "eval/accuracy": 0.5})


def test_smoothing_is_for_training_only():
    smooth, plain = Classification(DATA, label_smoothing=0.2), Classification(DATA)
    loss = float(smooth.losses(Logits(), BATCH)["loss"])
    assert loss == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4) + 0.9 * math.log(4) + 0.1 * math.log(4 / 3))
    assert smooth.evaluate(Logits(), BATCH)["loss"] == plain.evaluate(Logits(), BATCH)["loss"]


def test_tokens_are_refused():
    with pytest.raises(InputError, match=r"needs data described by ImageSpec, not by TokenSpec\. Use data=digits"):
        Classification(Data([], [], TokenSpec(256, 8), "tokens"))

"""Majority class and linear model, on the digits and on sets too large to use whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ava.data.arrays import ImageArray
from ava.data.digits import digits
from ava.data.source import Data, ImageSpec
from ava.tasks.baselines.linear import linear_model
from ava.tasks.baselines.majority import majority_class


def test_digits():
    data = digits(0)
    target = load_digits().target
    most = np.bincount(target[:898]).argmax()
    majority = majority_class(data)
    assert (majority.name, majority.metric) == ("majority class", "eval/accuracy")
    assert majority.value == np.mean(target[898:] == most)
    linear = linear_model(data, data.spec)
    assert (linear.name, linear.metric) == ("linear model", "eval/accuracy")
    assert linear.value == pytest.approx(0.939, abs=0.005)
    assert linear_model(digits(3, augment=False), data.spec) == linear


def test_what_was_left_out_stands_in_the_name(monkeypatch):
    monkeypatch.setattr("ava.tasks.baselines.linear._IMAGES", 40)
    labels = torch.arange(60) % 2
    images = torch.rand(60, 3, 32, 20, generator=torch.Generator().manual_seed(0)) + labels[:, None, None, None]
    data = Data(ImageArray(images, labels), ImageArray(images[:10], labels[:10]), ImageSpec(3, 32, 20, 2), "two greys")
    linear = linear_model(data, data.spec)
    assert linear.name == "linear model (40 of 60 training images, averaged to 16 x 16 pixels)"
    assert linear.value == 1.0


def test_a_training_split_of_one_class_has_an_answer():
    images = torch.rand(6, 1, 2, 2)
    data = Data(
        ImageArray(images, torch.ones(6, dtype=torch.int64)),
        ImageArray(images, torch.tensor([0, 1, 1, 1, 1, 1])),
        ImageSpec(1, 2, 2, 2),
        "one class",
    )
    assert linear_model(data, data.spec).value == majority_class(data).value == pytest.approx(5 / 6)

"""The digits: exactly scikit-learn's, read without importing it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits

from ava.data.digits import digits
from ava.data.source import Augmented, ImageSpec, Labelled


def test_equal_to_scikit_learns():
    data = digits(0, augment=False)
    bunch = load_digits()
    half = 1797 // 2
    assert data.spec == ImageSpec(1, 8, 8, 10)
    assert (len(data.train), len(data.valid)) == (half, 1797 - half)
    for split, rows in ((data.train, slice(None, half)), (data.valid, slice(half, None))):
        batch = split.fetch(np.arange(len(split)), 0)
        assert torch.equal(batch["inputs"], torch.tensor(bunch.images[rows] / 16, dtype=torch.float32)[:, None])
        assert torch.equal(batch["targets"], torch.tensor(bunch.target[rows]))
        assert batch["inputs"].dtype == torch.float32
        assert batch["targets"].dtype == torch.int64


def test_reading_does_not_import_scikit_learn():
    code = "import sys; from ava.data.digits import _read; _read(); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_training_is_augmented():
    data = digits(0)
    rows = np.arange(50)
    assert not torch.equal(data.train.fetch(rows, 0)["inputs"], data.train.fetch(rows, 1)["inputs"])
    assert torch.equal(data.valid.fetch(rows, 0)["inputs"], data.valid.fetch(rows, 1)["inputs"])
    assert isinstance(data.train, Augmented)
    assert isinstance(data.train, Labelled)
    plain = digits(0, augment=False).train.fetch(rows, 0)["inputs"]
    assert torch.equal(data.train.plain().fetch(rows, 0)["inputs"], plain)
    assert (data.train.fetch(rows, 0)["inputs"] - plain).abs().mean() < 0.2

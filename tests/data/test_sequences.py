"""Cutting a stream: every target once in every epoch, wherever the cuts fall."""

from __future__ import annotations

import numpy as np
import pytest

from ava.data.sequences import Sequences, byte_stream, splits
from ava.data.source import IGNORED
from ava.errors import InputError


def _all(split, epoch):
    batch = split.fetch(np.arange(len(split)), epoch)
    return batch["inputs"].numpy(), batch["targets"].numpy()


@pytest.mark.parametrize("length", [9, 64, 65, 66, 1000])
@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_epoch_has_each_target_once_with_its_predecessor(length, seed, epoch):
    split = Sequences(np.arange(length), 8, seed)
    inputs, targets = _all(split, epoch)
    counted = targets != IGNORED
    assert sorted(targets[counted]) == list(range(1, length))
    assert np.array_equal(inputs[counted], targets[counted] - 1)
    assert len(split) == -(-(length - 1) // 8)
    assert (~counted).sum() == len(split) * 8 - (length - 1)


def test_sequences_run_on_except_where_the_ring_closes():
    inputs, targets = _all(Sequences(np.arange(1000), 16, 3), 1)
    steps = np.diff(targets, axis=1)
    inside = (targets[:, 1:] != IGNORED) & (targets[:, :-1] != IGNORED)
    assert (steps[inside] != 1).sum() <= 1
    assert inputs.min() == 0


def test_training_is_cut_elsewhere_in_each_epoch_and_validation_is_not():
    train, valid = splits(np.arange(1000), np.arange(100), 16, 0)
    starts = {int(_all(train, epoch)[0][0, 0]) for epoch in range(8)}
    assert len(starts) == 8
    assert np.array_equal(_all(valid, 0)[1], _all(valid, 4)[1])
    assert np.array_equal(_all(valid, 0)[1].ravel()[:99], np.arange(1, 100))


def test_the_targets_of_text_are_its_documents_joined_by_zeros():
    documents = [b"first", b"", b"third \xff"]
    _, valid = splits(byte_stream([b"0123456789"]), byte_stream(documents), 4, 0)
    inputs, targets = _all(valid, 0)
    assert targets[targets != IGNORED].astype(np.uint8).tobytes() == b"first\0\0third \xff"
    assert inputs.ravel()[0] == 0


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [(b"short", b"enough", "5 tokens, too few for one sequence of context=8"), (b"long enough", b"", "validation")],
)
def test_too_little_text_is_refused(train, valid, message):
    with pytest.raises(InputError, match=message):
        splits(byte_stream([train]), byte_stream([valid]), 8, 0)

"""Packed documents: every token of each a target once, none predicted from another document."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ava.data.documents import of_bytes, separated
from ava.data.loader import Position, TrainingLoader
from ava.data.packed import packed_splits, text_splits
from ava.data.source import IGNORED
from ava.errors import InputError


def texts(seed=0, num=40, longest=60):
    """Documents of 1 to `longest` bytes that tell where each byte is from: no byte follows another's twice."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, rng.integers(1, longest), dtype=np.uint8).tobytes() for _ in range(num)] + [b""]


def packed(documents, context, seed=None):
    train, valid = packed_splits(documents, documents, context, seed)
    return valid if seed is None else train


def all_of(split, epoch=0):
    batch = split.fetch(np.arange(len(split)), epoch)
    return {name: tensor.numpy() for name, tensor in batch.items()}


def pieces_of(batch):
    """The inputs and targets of each piece."""
    for row, numbers in enumerate(batch["documents"]):
        for number in range(numbers.max() + 1):
            here = numbers == number
            yield batch["inputs"][row, here], batch["targets"][row, here]


@pytest.mark.parametrize("seed", [None, 0, 1], ids=["validation", "seed 0", "seed 1"])
@pytest.mark.parametrize("epoch", [0, 1, 7])
@pytest.mark.parametrize("context", [1, 8, 16, 100])
def test_every_byte_of_every_document_is_a_target_once_after_its_predecessor(seed, epoch, context):
    documents = texts()
    batch = all_of(packed(of_bytes(documents), context, seed), epoch)
    expected = sorted((before, after) for d in documents for before, after in zip(b"\0" + d, d, strict=False))
    counted = batch["targets"] != IGNORED
    got = sorted(zip(batch["inputs"][counted].tolist(), batch["targets"][counted].tolist(), strict=True))
    assert got == expected
    for inputs, targets in pieces_of(batch):
        assert np.array_equal(inputs[1:], targets[:-1])
        whole = b"|".join(b"\0" + d for d in documents)
        assert inputs.astype(np.uint8).tobytes() + bytes([targets[-1]]) in whole


@pytest.mark.parametrize("seed", [None, 0], ids=["validation", "training"])
def test_what_is_filled_up_is_marked_and_counts_for_nothing(seed):
    split = packed(of_bytes(texts()), 16, seed)
    batch = all_of(split)
    empty = batch["documents"] == -1
    assert np.array_equal(empty, batch["targets"] == IGNORED)
    assert not batch["inputs"][empty].any()
    assert empty.mean() == pytest.approx(split.padding)
    assert (~empty).sum() == split.num_targets == sum(map(len, texts()))


def test_targets_are_the_streams_but_for_the_separators():
    documents = texts()
    stream, _ = text_splits(documents, documents, 16, 0, "stream")
    train, valid = text_splits(documents, documents, 16, 0, "documents")
    assert train.num_targets == valid.num_targets == stream.num_targets - (len(documents) - 1)


def test_validation_has_its_targets_in_the_order_of_the_text():
    documents = texts()
    targets = all_of(packed(of_bytes(documents), 16), 3)["targets"]
    assert targets[targets != IGNORED].astype(np.uint8).tobytes() == b"".join(documents)


def test_long_documents_are_cut_elsewhere_in_each_epoch_and_sequences_stay_as_many():
    split = packed(of_bytes(texts(longest=200)), 16, 5)
    epochs = [all_of(split, epoch)["targets"] for epoch in range(4)]
    assert all(not np.array_equal(epochs[0], other) for other in epochs[1:])
    again = all_of(packed(of_bytes(texts(longest=200)), 16, 5), 2)["targets"]
    assert np.array_equal(epochs[2], again)


def test_a_sequence_does_not_depend_on_the_batch_it_is_fetched_with():
    split = packed(of_bytes(texts()), 16, 5)
    whole = all_of(split, 1)
    for index in (len(split) - 1, 0, 7):
        one = split.fetch(np.array([index]), 1)
        assert all(np.array_equal(one[name][0], whole[name][index]) for name in whole)


def test_training_resumes_and_ranks_share():
    split = packed(of_bytes(texts()), 16, 5)
    windows = itertools.islice(TrainingLoader(split, batch_size=6).windows(Position()), 2)
    one = [window.batches[0]["targets"] for window in windows]
    second = next(iter(TrainingLoader(split, batch_size=6).windows(Position(0, 6)))).batches[0]
    assert second["targets"].equal(one[1])
    shares = [
        next(iter(TrainingLoader(split, batch_size=6, rank=rank, world_size=2).windows(Position()))).batches[0]
        for rank in (0, 1)
    ]
    assert np.array_equal(np.concatenate([share["targets"] for share in shares]), one[0])


def test_best_fit_pads_less_than_a_row_per_document():
    documents = of_bytes(texts(num=400))
    assert packed(documents, 64, 0).padding < 0.05 < packed(documents, 64).padding < 0.5


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        ([9, 1, 2, 9, 3, 9], [[1, 2], [3]]),
        ([1, 2, 9, 9, 3, 4], [[2], [3, 4]]),
        ([1, 2, 3], [[2, 3]]),
        ([9, 9], []),
    ],
    ids=["before and behind", "between", "nowhere", "nothing else"],
)
def test_documents_between_separators(stream, expected):
    found = separated(np.array(stream), 9)
    spans = zip(found.starts, found.lengths, strict=True)
    assert [stream[start : start + length] for start, length in spans] == expected


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [([b""], [b"text"], "training split has no token"), ([b"text"], [b""], "validation split is empty")],
    ids=["training", "validation"],
)
def test_nothing_to_predict_is_refused(train, valid, message):
    with pytest.raises(InputError, match=message):
        packed_splits(of_bytes(train), of_bytes(valid), 8, 0)

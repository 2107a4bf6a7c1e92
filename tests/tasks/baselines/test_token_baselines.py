"""Unigram and compressors, on exactly the bytes that a model is measured on."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math

import numpy as np
import pytest

from ava.data.sequences import Sequences, byte_stream, splits
from ava.data.source import Data, TokenSpec
from ava.tasks.baselines.compression import compressors
from ava.tasks.baselines.unigram import unigram

TRAIN = [b"a rose is a rose is a rose " * 20, b"and more"]
VALID = [b"it was the best of times, " * 30, b"", b"it was the worst of times " * 30]


def _data(context: int) -> Data:
    train, valid = splits(byte_stream(TRAIN), byte_stream(VALID), context, 0)
    return Data(train, valid, TokenSpec(256, context, "byte"), "lines")


@pytest.mark.parametrize("context", [7, 64, 500])
def test_compressors_get_the_validation_bytes(context):
    text = b"\0".join(VALID)
    expected = {
        "gzip -9": len(gzip.compress(text, 9)),
        "bzip2 -9": len(bz2.compress(text, 9)),
        "xz -9": len(lzma.compress(text, preset=9)),
    }
    found = {baseline.name: baseline.value for baseline in compressors(_data(context))}
    assert found == pytest.approx({name: 8 * size / len(text) for name, size in expected.items()})


def test_unigram_is_the_cross_entropy_with_trainings_frequencies():
    train, valid = (np.frombuffer(b"\0".join(text), dtype=np.uint8) for text in (TRAIN, VALID))
    expected = np.mean([-math.log2((np.sum(train == byte) + 1) / (len(train) + 256)) for byte in valid])
    found = unigram(_data(16), 256, "eval/bits_per_byte")
    assert (found.name, found.metric) == ("unigram", "eval/bits_per_byte")
    assert found.value == pytest.approx(expected)


def test_unigram_of_uniform_tokens_is_the_logarithm_of_the_vocabulary():
    stream = np.arange(64_001) % 1000
    data = Data(Sequences(stream, 32, 0), Sequences(stream, 32), TokenSpec(1000, 32), "a ring")
    assert unigram(data, 1000, "eval/bits_per_token").value == pytest.approx(math.log2(1000), abs=1e-5)


def test_what_was_left_out_stands_in_the_name(monkeypatch):
    monkeypatch.setattr("ava.tasks.baselines.compression._LIMIT", 100)
    monkeypatch.setattr("ava.tasks.baselines.unigram._LIMIT", 100)
    data = _data(64)
    expected = 8 * len(gzip.compress(b"\0".join(VALID)[:100], 9)) / 100
    assert compressors(data)[0].name == "gzip -9 (first 100 bytes)"
    assert compressors(data)[0].value == pytest.approx(expected)
    assert unigram(data, 256, "eval/bits_per_byte").name == "unigram (first 100 tokens)"

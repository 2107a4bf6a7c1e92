"""Every source without a download or with a sample of files keeps the promises of a split."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from ava import registry
from ava.data.source import Data, ImageSpec


@pytest.fixture(scope="module", params=registry.data.names())
def source(request, tmp_path_factory) -> Data:
    """One small instance of each registered source."""
    folder = tmp_path_factory.mktemp(request.param)
    random = np.random.default_rng(0)
    path = None
    if request.param == "text":
        path = folder / "a.txt"
        path.write_bytes(random.integers(0, 256, 5000, dtype=np.uint8).tobytes())
    elif request.param == "tokens":
        path = folder / "a.bin"
        random.integers(0, 1000, 5000).astype(np.uint16).tofile(path)
    elif request.param == "images":
        path = folder
        for label in ("cat", "dog"):
            (folder / label).mkdir()
            for k in range(12):
                Image.fromarray(random.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(folder / label / f"{k}.png")
    options = {} if path is None else {"path": str(path)}
    return registry.data[request.param].load()(5, **options)


def _rows(split, count=8):
    return np.random.default_rng(1).permutation(len(split))[:count].astype(np.int64)


def test_batches_have_the_shapes_of_the_spec(source):
    for split in (source.train, source.valid):
        rows = _rows(split)
        batch = split.fetch(rows, 2)
        if isinstance(source.spec, ImageSpec):
            assert batch["inputs"].shape == (len(rows), source.spec.channels, source.spec.height, source.spec.width)
            assert batch["inputs"].dtype == torch.float32
            assert 0 <= batch["inputs"].min() <= batch["inputs"].max() <= 1
            assert batch["targets"].shape == (len(rows),)
            assert 0 <= batch["targets"].min() <= batch["targets"].max() < source.spec.num_classes
        else:
            assert batch["inputs"].shape == batch["targets"].shape == (len(rows), source.spec.context)
            assert batch["inputs"].dtype == torch.int64
            assert 0 <= batch["inputs"].min() <= batch["inputs"].max() < source.spec.vocab_size
        assert batch["targets"].dtype == torch.int64


def test_fetch_is_a_pure_function_of_epoch_and_index(source):
    split = source.train
    rows = _rows(split)
    whole = split.fetch(rows, 1)
    torch.manual_seed(123)
    state = torch.get_rng_state()
    for k, row in enumerate(rows):
        alone = split.fetch(np.array([row]), 1)
        for name in whole:
            assert torch.equal(alone[name][0], whole[name][k]), name
    assert torch.equal(torch.get_rng_state(), state)


def test_a_worker_process_fetches_the_same(source):
    for split in (source.train, source.valid):
        rows = _rows(split)
        here = split.fetch(rows, 1)
        there = pickle.loads(pickle.dumps(split)).fetch(rows, 1)
        assert all(torch.equal(here[name], there[name]) for name in here)


def test_description_counts(source):
    assert len(source.train) > 0
    assert len(source.valid) > 0
    assert any(character.isdigit() for character in source.description)
    assert "\n" not in source.description

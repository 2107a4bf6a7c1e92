"""Token shards: layouts, names, ranges, and files that are only mapped."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ava.data.shards import Shard, open_shard
from ava.data.source import IGNORED, TokenSpec
from ava.data.tokens import tokens
from ava.errors import InputError


def _targets(split) -> list[int]:
    targets = split.fetch(np.arange(len(split)), 0)["targets"].numpy()
    return targets[targets != IGNORED].tolist()


@pytest.mark.parametrize("kind", ["uint16", "uint32", "npy", "llm.c uint16", "llm.c uint32"])
def test_layouts(tmp_path, kind):
    stream = np.arange(1000) * 65
    dtype = kind.split()[-1] if "uint" in kind else "uint16"
    path = tmp_path / ("a.npy" if kind == "npy" else "a.bin")
    if kind == "npy":
        np.save(path, stream.astype(np.int32))
    else:
        header = np.zeros(256 if "llm.c" in kind else 0, dtype=np.int32)
        header[:3] = ((20240520, 1, 1000) if dtype == "uint16" else (20240801, 7, 1000))[: len(header)]
        path.write_bytes(header.tobytes() + stream.astype(dtype).tobytes())
    data = tokens(0, path=str(path), dtype="uint16" if "llm.c" in kind else dtype, context=16, valid_fraction=0.1)
    assert data.spec == TokenSpec(vocab_size=999 * 65 + 1, context=16, unit="token")
    assert _targets(data.valid) == stream[901:].tolist()
    assert sorted(_targets(data.train)) == stream[1:900].tolist()


@pytest.mark.parametrize(
    "names", [("train.bin", "val.bin"), ("web_train_01.bin", "web_train_02.bin", "web_val_00.bin")]
)
def test_names_choose_the_split(tmp_path, names):
    for k, name in enumerate(names):
        np.arange(100 * k, 100 * k + 100, dtype=np.uint16).tofile(tmp_path / name)
    data = tokens(0, path=str(tmp_path), context=8)
    last = 100 * (len(names) - 1)
    assert sorted(_targets(data.train)) == list(range(1, last))
    assert _targets(data.valid) == list(range(last + 1, last + 100))


def test_sequences_run_across_shards_without_named_splits(tmp_path):
    for k in range(3):
        np.arange(100 * k, 100 * k + 100, dtype=np.uint16).tofile(tmp_path / f"{k}.bin")
    data = tokens(0, path=str(tmp_path), context=64, valid_fraction=0.5)
    assert sorted(_targets(data.train)) == list(range(1, 150))
    assert _targets(data.valid) == list(range(151, 300))


def test_shards_are_mapped_and_travel_as_names_only(tmp_path):
    path = tmp_path / "a.bin"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    shard = open_shard(path, "uint16")
    assert isinstance(shard.tokens, np.memmap)
    assert int(shard.tokens[-1]) == 0
    assert len(pickle.dumps(shard)) < 1000
    assert pickle.loads(pickle.dumps(shard)) == shard


def test_a_token_out_of_range_is_found_while_reading(tmp_path, monkeypatch):
    """Beyond what is checked at the start."""
    monkeypatch.setattr("ava.data.tokens._CHECKED_AT_START", 0)
    np.array([1] * 50 + [99] + [1] * 50, dtype=np.uint16).tofile(tmp_path / "a.bin")
    data = tokens(0, path=str(tmp_path), vocab_size=50, context=8, valid_fraction=0.1)
    with pytest.raises(InputError, match=r"a\.bin holds the token 99, but data.vocab_size is 50"):
        data.train.fetch(np.arange(len(data.train)), 0)


def _prepare(folder):
    (folder / "odd.bin").write_bytes(b"abc")
    (folder / "empty.bin").write_bytes(b"")
    (folder / "text.txt").write_text("text")
    (folder / "broken.npy").write_bytes(b"not numpy at all")
    (folder / "hollow").mkdir()
    (folder / "only").mkdir()
    for name in ("val.bin", "val2.bin"):
        np.arange(50, dtype=np.uint16).tofile(folder / "only" / name)
    np.save(folder / "matrix.npy", np.zeros((4, 4), dtype=np.uint16))
    np.save(folder / "floats.npy", np.zeros(40))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(folder / "negative.npy", np.array([3, -1] * 500))
    np.arange(600, dtype=np.uint16).tofile(folder / "good.bin")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give path=FILE_OR_FOLDER"),
        ({"path": "missing"}, "No such file"),
        ({"path": "hollow"}, "no token files in"),
        ({"path": "text.txt"}, "is no token file. They end in .bin or .npy; for plain text use data=text"),
        ({"path": "empty.bin"}, "empty.bin is empty"),
        ({"path": "odd.bin"}, "has 3 bytes, which is no whole number of uint16 tokens"),
        ({"path": "broken.npy"}, "is no numpy array"),
        ({"path": "objects.npy"}, "is no numpy array"),
        ({"path": "matrix.npy"}, r"holds uint16 of shape \(4, 4\)"),
        ({"path": "floats.npy"}, r"holds float64 of shape \(40,\)"),
        ({"path": "negative.npy"}, "holds the token -1; tokens count from 0"),
        ({"path": "only"}, "is named for validation"),
        ({"path": "good.bin", "vocab_size": 500}, "holds the token 599, but data.vocab_size is 500. Give .*=600"),
        ({"path": "good.bin", "context": 1000}, "too few for one sequence of context=1000"),
        ({"path": "good.bin", "separator": 600}, "data.separator=600: must be a token, below vocab_size=600"),
        ({"path": "good.bin", "separator": 599}, "data.separator=599: separates nothing in the training split"),
    ],
)
def test_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    _prepare(tmp_path)
    with pytest.raises(InputError, match=message):
        tokens(0, **options)


def test_documents_between_separators_are_packed(tmp_path):
    rng = np.random.default_rng(0)
    train, valid = ([rng.integers(1, 50, rng.integers(1, 30)) for _ in range(num)] for num in (30, 5))
    for name, documents in (("train", train), ("val", valid)):
        stream = np.concatenate([np.concatenate(([0], document)) for document in documents])
        stream.astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    data = tokens(0, path=str(tmp_path), context=16, separator=0)
    assert _targets(data.valid) == np.concatenate(valid).tolist()
    assert sorted(_targets(data.train)) == sorted(np.concatenate(train).tolist())
    assert "documents packed" in data.description
    assert "documents packed" not in tokens(0, path=str(tmp_path), context=16).description


def test_a_file_that_vanished_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.bin cannot be read"):
        _ = Shard(tmp_path / "gone.bin", "uint16", 0, 4).tokens

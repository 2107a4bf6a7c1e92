"""The packing bench cuts the same documents in three ways and measures each."""

import json

import numpy as np
import pytest

from ava.bench import packing
from ava.cli.main import main
from ava.data.source import IGNORED

TEXTS = [bytes(range(1, k)) for k in range(2, 60)]


def test_the_ways_differ_in_rows_and_agree_in_targets():
    ways = packing.splits(TEXTS, 16)
    targets = {}
    for way, split in ways.items():
        counted = split.fetch(np.arange(len(split)), 0)["targets"].numpy()
        targets[way] = sorted(counted[counted != IGNORED].tolist())
    assert targets["documents"] == targets["alone"] == sorted(t for t in targets["stream"] if t)
    assert len(ways["documents"]) < len(ways["alone"])


@pytest.mark.parametrize("kind", ["files", "definitions"])
def test_texts(kind):
    train, valid = packing.texts(kind)
    assert len(train) > 100
    assert packing.HELD_OUT <= sum(map(len, valid)) < 10 * packing.HELD_OUT


def test_definitions_join_to_the_file():
    file = b"import a\n\ndef f():\n    def g(): pass\n\nclass A:\n    pass\nasync def h(): pass\n"
    parts = packing._definitions(file)
    assert b"".join(parts) == file
    assert [part.split(maxsplit=1)[0] for part in parts] == [b"import", b"def", b"class", b"async"]


@pytest.mark.slow
def test_every_way_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "HELD_OUT", 3000)
    file = tmp_path / "x.json"
    words = ["--context", "64", "--batch-size", "2", "--steps", "2", "--seeds", "1", "--rounds", "1"]
    assert main(["bench", "packing", *words, "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["way"] for row in rows] == ["stream", "documents", "alone"]
    assert all(row["ratio"] > 0 and float(row["alone"]) > 0 for row in rows)

"""A user's text: one file, a folder, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ava.data.source import IGNORED
from ava.data.text import text
from ava.errors import InputError


def _bytes(split) -> bytes:
    targets = split.fetch(np.arange(len(split)), 0)["targets"].numpy()
    return targets[targets != IGNORED].astype(np.uint8).tobytes()


def test_the_end_of_a_single_file_is_held_out(tmp_path):
    content = bytes(range(256)) * 4
    (tmp_path / "a.txt").write_bytes(content)
    for path in (tmp_path, tmp_path / "a.txt"):
        data = text(0, path=str(path), context=32, valid_fraction=0.25)
        assert _bytes(data.valid) == content[768:]
        assert sorted(_bytes(data.train)) == sorted(content[:768])
        assert data.spec.unit == "byte"


def test_a_folder_is_split_by_file(tmp_path):
    (tmp_path / "deep").mkdir()
    contents = {f"deep/{k}.md": f"document {k} ".encode() * 5 for k in range(9)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "other.txt").write_text("not asked for")
    (tmp_path / "empty.md").write_text("")
    data = text(0, path=str(tmp_path), pattern="**/*.md", context=8, valid_fraction=0.3)
    held = _bytes(data.valid).split(b"\0")
    assert set(held) < set(contents.values())
    assert len(_bytes(data.train)) + len(_bytes(data.valid)) == sum(map(len, contents.values())) + 7


def _prepare(folder):
    (folder / "empty.txt").write_text("")
    (folder / "short.txt").write_text("too short")
    (folder / "hollow").mkdir()
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("text")
    (folder / "void").mkdir()
    (folder / "void" / "a.txt").write_text("")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give path=FILE_OR_FOLDER"),
        ({"path": "missing.txt"}, "'missing.txt' cannot be read: No such file or directory"),
        ({"path": "a\0b"}, "cannot be read: embedded null"),
        ({"path": "short.txt/below"}, "cannot be read: Not a directory"),
        ({"path": "empty.txt"}, "empty.txt is empty"),
        ({"path": "void"}, "all files of .*void that match are empty"),
        ({"path": "hollow"}, "matches '\\*\\*/\\*.txt'. It holds no files"),
        ({"path": "docs"}, "It holds files ending in .md"),
        ({"path": "docs", "pattern": "/etc/*"}, "'/etc/\\*' is no pattern"),
        ({"path": "short.txt"}, "the training split has 9 tokens, too few for one sequence of context=256"),
        ({"path": "short.txt", "context": 4, "valid_fraction": 0.0}, "the validation split is empty"),
        ({"path": "short.txt", "context": 4, "valid_fraction": 1.0}, "the training split has 0 tokens"),
    ],
)
def test_refused(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    _prepare(tmp_path)
    with pytest.raises(InputError, match=message):
        text(0, **options)


def test_documents_can_be_packed_whole(tmp_path):
    contents = [f"document {k} ".encode() * (k + 1) for k in range(9)]
    for k, content in enumerate(contents):
        (tmp_path / f"{k}.txt").write_bytes(content)
    data = text(0, path=str(tmp_path), context=64, packing="documents")
    batches = [split.fetch(np.arange(len(split)), 0) for split in (data.train, data.valid)]
    counted = [int((batch["targets"] != IGNORED).sum()) for batch in batches]
    assert sum(counted) == sum(map(len, contents))
    assert all("documents" in batch for batch in batches)
    assert f"{counted[0]} bytes for training, {counted[1]} for validation, documents packed" in data.description

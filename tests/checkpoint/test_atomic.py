from __future__ import annotations

import pytest

from ava.checkpoint import atomic


def test_a_text_is_replaced_and_nothing_else_stays(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "one")
    atomic.write_text(path, "zwölf")
    assert path.read_text(encoding="utf-8") == "zwölf"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_fails_leaves_the_old_content(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")

    def chunks():
        yield b"new"
        raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        atomic.write_lines(path, chunks())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_forcing_many_paths_reports_the_missing_one(tmp_path):
    (tmp_path / "a").write_text("x")
    atomic.force_to_disk(tmp_path / "a", tmp_path)
    with pytest.raises(FileNotFoundError):
        atomic.force_to_disk(tmp_path / "a", tmp_path / "b")

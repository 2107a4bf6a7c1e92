"""Reading what was appended."""

from __future__ import annotations

from ava.reporting.tail import Tail


def test_each_line_is_read_once_and_a_torn_one_waits(tmp_path):
    path = tmp_path / "rows.jsonl"
    tail = Tail(path)
    assert list(tail.new()) == []
    path.write_text('{"step": 1}\n{"step"')
    assert list(tail.new()) == [{"step": 1}]
    with path.open("a") as file:
        file.write(': 2}\nno json\n{"step": 3, "loss": "inf"}\n')
    assert list(tail.new()) == [{"step": 2}, {"step": 3, "loss": float("inf")}]
    assert list(tail.new()) == []
    path.write_text('{"step": 9}\n')
    assert list(tail.new()) == [{"step": 9}]

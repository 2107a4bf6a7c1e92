from __future__ import annotations

import json
import math

import pytest

from ava.errors import InputError
from ava.reporting.metrics import MetricsLog


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    yield log
    log.close()


def fill(log, steps=4):
    for step in range(1, steps + 1):
        log.on_log({"step": step, "loss": 1 / step})
        log.on_eval({"step": step, "eval/loss": 2 / step})


def test_rows_are_lines_with_the_step_first(log):
    log.on_log({"loss": 0.5, "step": 3, "lr": 1e-3})
    log.on_eval({"eval/loss": 0.25, "step": 3})
    assert log.path.read_text() == '{"step": 3, "loss": 0.5, "lr": 0.001}\n{"step": 3, "eval/loss": 0.25}\n'
    assert log.read() == [{"step": 3, "loss": 0.5, "lr": 0.001}, {"step": 3, "eval/loss": 0.25}]


def test_nothing_is_made_before_the_first_row(log):
    assert not log.path.exists()
    assert log.read() == []
    assert log.truncate_after(3) == 0
    log.on_checkpoint(1, log.path)


def test_every_line_is_strict_json_even_when_the_run_diverged(log):
    log.on_log({"step": 1, "loss": math.nan, "grad_norm": math.inf, "lr": -math.inf})

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(log.path.read_text(), parse_constant=refuse) == {
        "step": 1, "loss": "nan", "grad_norm": "inf", "lr": "-inf"}  # fmt: skip
    (row,) = log.read()
    assert math.isnan(row["loss"])
    assert (row["grad_norm"], row["lr"]) == (math.inf, -math.inf)


def test_floats_come_back_bit_for_bit(log):
    values = [0.1, 1e-300, 123456789.123456789, 2**53 + 1]
    for value in values:
        log.on_log({"step": 1, "x": value})
    assert [row["x"] for row in log.read()] == values


def test_truncation_keeps_up_to_the_step_and_the_file_goes_on(log):
    fill(log)
    assert log.truncate_after(2) == 4
    fill(log, 1)
    assert [row["step"] for row in log.read()] == [1, 1, 2, 2, 1, 1]
    assert [p.name for p in log.path.parent.iterdir()] == ["metrics.jsonl"]


def test_truncation_keeps_lines_byte_for_byte(log):
    fill(log)
    before = log.path.read_bytes()
    log.truncate_after(99)
    assert log.path.read_bytes() == before


@pytest.mark.parametrize("torn", [b'{"step": 4, "lo', b"\0\0\0\0", b"{}", b'{"step": 4', b"\xff"])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_torn_last_line_is_dropped(log, torn, end):
    fill(log, 3)
    log.close()
    with log.path.open("ab") as file:
        file.write(torn + end)
    assert log.truncate_after(4) == 6
    assert len(log.read()) == 6
    assert log.path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("damage", [b"garbage\n", b"7\n", b"\n", b'{"step": 4\n'])
def test_damage_in_the_middle_is_named_and_nothing_is_lost(log, damage):
    fill(log, 1)
    log.close()
    content = damage + log.path.read_bytes()
    log.path.write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1, is no JSON object"):
        log.truncate_after(1)
    assert log.path.read_bytes() == content


def test_closing_twice(log):
    fill(log)
    log.close()
    log.close()

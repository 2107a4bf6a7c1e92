from __future__ import annotations

import csv
import io
import math

from rich.console import Console

from ava.reporting.table import best_first, print_table, write_csv

ROWS = [
    {"run": "a", "status": "done", "lr": 0.1, "eval/accuracy": 0.5},
    {"run": "b", "status": "failed"},
    {"run": "c", "status": "done", "lr": 0.001, "eval/accuracy": 0.9, "extra": "[x], \"y\""},
    {"run": "d", "status": "diverged", "lr": 10, "eval/accuracy": math.nan},
]  # fmt: skip


def test_best_first_and_failures_last():
    assert [row["run"] for row in best_first(ROWS, "eval/accuracy", "max")] == ["c", "a", "b", "d"]
    assert [row["run"] for row in best_first(ROWS, "eval/accuracy", "min")] == ["a", "c", "b", "d"]
    assert [row["run"] for row in best_first(ROWS, "no such metric", "min")] == ["a", "b", "c", "d"]


def test_csv_keeps_everything(tmp_path):
    write_csv(ROWS, tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "status", "lr", "eval/accuracy", "extra"]
    assert rows[2] == {"run": "c", "status": "done", "lr": "0.001", "eval/accuracy": "0.9", "extra": '[x], "y"'}
    assert rows[1] == {"run": "b", "status": "failed", "lr": "", "eval/accuracy": "", "extra": ""}
    assert rows[3]["eval/accuracy"] == "nan"


def test_the_table_shows_text_as_it_is():
    output = io.StringIO()
    print_table(ROWS, Console(file=output, width=100), title="Results")
    text = output.getvalue()
    assert "Results" in text
    for part in ["eval/accuracy", "0.9000", '[x], "y"', "diverged", "nan"]:
        assert part in text


def test_an_empty_table(tmp_path):
    print_table([], Console(file=io.StringIO()))
    write_csv([], tmp_path / "sweep.csv")
    assert (tmp_path / "sweep.csv").read_text() == "\n"

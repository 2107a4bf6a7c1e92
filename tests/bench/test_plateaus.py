"""`ava bench plateaus` counts what it says."""

import json

import pytest

from ava.bench.plateaus import Cell, main, measure


def test_a_plateau_in_noise_is_seen_late_and_only_there():
    row = measure(Cell("knee at 300", "gaussian", 0.01, 5), runs=4)
    assert row["ava_alarms"] == 0
    assert 0 < row["ava_delay"] < 60


@pytest.mark.parametrize("kind", ["gaussian", "t3", "ar0.5"])
def test_a_curve_that_falls_all_the_way_has_no_delay(kind):
    row = measure(Cell("linear 2 to 1", kind, 0.3, 5), runs=3)
    assert (row["ava_alarms"], row["ava_delay"], row["torch_delay"]) == (0, None, None)
    assert row["torch_alarms"] == 1


def test_the_table_and_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ava.bench.plateaus.NOISES", (0.1,))
    monkeypatch.setattr("ava.bench.plateaus.KINDS", ("gaussian",))
    assert main(["--runs", "1", "--patience", "3", "--json", str(tmp_path / "p.json")]) == 0
    rows = json.loads((tmp_path / "p.json").read_text())["rows"]
    assert {row["curve"] for row in rows} == {"linear 2 to 1", "1 + exp(-2 t / 1000)", "3 (t + 10)^-0.3",
                                              "knee at 300", "level"}  # fmt: skip
    assert "false alarms" in capsys.readouterr().out

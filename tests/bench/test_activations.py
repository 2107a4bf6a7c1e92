"""`ava bench activations`: its counting is right, and its table whole."""

import json

import torch

from ava.bench.activations import MODES, Counted, main


def test_counts_each_piece_of_memory_once_and_for_as_long_as_it_lives():
    x = torch.ones(1000)
    with Counted() as counted:
        y = x * 2
        view = y.view(10, 100)
        assert counted.held == 4000
        del y
        assert counted.held == 4000
        del view
        assert counted.held == 0
        x.add_(1)
        z = torch.cat([x, x])
    assert (counted.held, counted.peak) == (8000, 8000)
    del z
    assert counted.held == 0


def test_has_a_row_for_each_mode(tmp_path, capsys):
    file = tmp_path / "activations.json"
    small = ["--models", "1m", "--batch", "1", "--context", "16", "--rounds", "1", "--json", str(file)]
    assert main(small) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["mode"] for row in rows] == list(MODES)
    assert rows[0]["kept_ratio"] == rows[0]["time_ratio"] == 1.0
    assert all(row["kept_mb"] < rows[0]["kept_mb"] for row in rows[1:])
    assert "activation_checkpointing" in capsys.readouterr().out

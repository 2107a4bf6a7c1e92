"""`ava bench agmohd` measures what it says."""

import json

from ava.bench import agmohd
from ava.cli.main import main


def test_every_arm_is_a_row(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(agmohd, "SHORTEST", 0.0)
    file = tmp_path / "x.json"
    assert main(["bench", "agmohd", "--sets", "tiny", "--rounds", "2", "--json", str(file)]) == 0
    rows = {row["arm"]: row for row in json.loads(file.read_text())["rows"]}
    assert list(rows) == [arm.name for arm in agmohd.ARMS]
    assert rows[agmohd.BASE]["ratio"] == rows[agmohd.CLIPPED]["clipped"] == rows[agmohd.OURS]["ours"] == 1.0
    assert all(row["ratio"] > 0 for row in rows.values())
    assert rows["agmohd"]["bytes"] < 1.2 * rows[agmohd.BASE]["bytes"]  # a number more for each of its small tensors
    assert "over AdamW + clip" in capsys.readouterr().out

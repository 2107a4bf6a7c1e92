from __future__ import annotations

import math

from ava.reporting.incidents import IncidentLog


def test_incidents_are_appended_over_restarts(tmp_path):
    path = tmp_path / "incidents.jsonl"
    assert IncidentLog(path).read() == []
    assert not path.exists()
    IncidentLog(path).write(3, "nonfinite_gradient", "skip", grad_norm=math.inf)
    IncidentLog(path).write(2, "loss_spike", "rollback", to_step=1.0, note="again")
    first, second = IncidentLog(path).read()
    assert (first["step"], first["kind"], first["action"], first["grad_norm"]) == (
        3,
        "nonfinite_gradient",
        "skip",
        math.inf,
    )
    assert (second["to_step"], second["note"]) == (1.0, "again")
    assert first["time"] <= second["time"]

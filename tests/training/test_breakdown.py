"""An error that nobody expected is told with its step; those that have a message of their own pass."""

from pathlib import Path

import pytest

from ava.errors import InputError, Interrupted, TrainingFailed
from ava.reporting.incidents import IncidentLog
from ava.training.breakdown import breakdowns


def test_an_unexpected_error_becomes_a_failure_at_its_step(tmp_path):
    incidents = IncidentLog(tmp_path / "incidents.jsonl")
    message = r"^step 7: LookupError: no such row\. AVA_TRACEBACK=1"
    with pytest.raises(TrainingFailed, match=message) as failure, breakdowns(lambda: 7, incidents):
        raise LookupError("no\nsuch row.")
    assert failure.value.of_one_rank
    assert [(row["step"], row["error"]) for row in incidents.read()] == [(7, "LookupError: no such row.")]


@pytest.mark.parametrize(
    "error",
    [
        TrainingFailed("diverged.", step=3),
        InputError("a bad image."),
        Interrupted(15, step=3, checkpoint=Path("run/checkpoints/step-3")),
        BrokenPipeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_with_a_message_of_its_own_passes(tmp_path, error):
    with pytest.raises(type(error)) as raised, breakdowns(lambda: 7, IncidentLog(tmp_path / "incidents.jsonl")):
        raise error
    assert raised.value is error
    assert list(tmp_path.iterdir()) == []


def test_an_incident_that_cannot_be_written_hides_nothing(tmp_path):
    incidents = IncidentLog(tmp_path / "gone" / "incidents.jsonl")
    with pytest.raises(TrainingFailed, match=r"^step 7: OSError: disk full"), breakdowns(lambda: 7, incidents):
        raise OSError("disk full")

from __future__ import annotations

import pytest

from ava.cli.exits import run_command
from ava.errors import InputError, Interrupted, TrainingFailed


def raising(error):
    def body():
        raise error

    return body


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no good.", key="seed", value=-1), 2, "ava-x: seed=-1: no good.\n"),
        (TrainingFailed("it diverged.", step=3), 1, "ava-x: step 3: it diverged.\n"),
        (KeyboardInterrupt(), 130, "ava-x: interrupted\n"),
        (
            ZeroDivisionError("oh\nno"),
            1,
            "ava-x: failed unexpectedly: ZeroDivisionError: oh no (AVA_TRACEBACK=1 shows where)\n",
        ),
    ],
)
def test_an_error_becomes_a_code_and_a_message(error, code, message, monkeypatch, capsys):
    monkeypatch.delenv("AVA_TRACEBACK", raising=False)
    monkeypatch.delenv("RANK", raising=False)

    assert run_command("ava-x", raising(error)) == code
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143)])
def test_a_signal_after_a_checkpoint(number, code, tmp_path, capsys):
    error = Interrupted(number, step=7, checkpoint=tmp_path / "run" / "checkpoints" / "step-7")

    assert run_command("ava-x", raising(error)) == code
    assert f"resume={tmp_path / 'run'}" in capsys.readouterr().err


def test_other_ranks_only_tell_what_is_unexpected(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "3")

    assert run_command("ava-x", raising(InputError("no good."))) == 2
    assert capsys.readouterr().err == ""
    assert run_command("ava-x", raising(LookupError("lost"))) == 1
    assert capsys.readouterr().err.startswith("rank 3: ava-x: failed unexpectedly")


def test_the_code_of_a_command_is_its_own():
    assert run_command("ava-x", lambda: 0) == 0

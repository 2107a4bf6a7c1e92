from __future__ import annotations

import pytest

from ava.cli import train


@pytest.mark.parametrize(
    ("line", "expected", "never"),
    [
        ("ava-train optimizer=", ["optimizer=adamw", "optimizer=lion", "optimizer=sgd"], []),
        ("ava-train optimizer=li", ["optimizer=lion"], ["optimizer=adamw"]),
        ("ava-train optim", ["optimizer="], []),
        ("ava-train optimizer=lion optimizer.", ["optimizer.lr="], ["optimizer.eps="]),
        ("ava-train trainer.max", ["trainer.max_steps=", "trainer.max_epochs="], []),
        ("ava-train ", ["optimizer=", "seed=", "trainer."], ["hydra.", "hydra/", "hydra"]),
        ("ava-train hyd", [], ["hydra.", "hydra/", "hydra"]),
    ],
)
def test_a_query_is_answered(line, expected, never, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)

    assert train.main(["-sc", "query=bash"]) == 0

    words = capsys.readouterr().out.split()
    assert set(expected) <= set(words)
    assert not set(never) & set(words)


@pytest.mark.parametrize("line", ["ava-train --c", "ava-train --config-dir", "ava-train --nothing"])
def test_an_option_half_written_is_met_with_silence(line, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", line)

    assert train.main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().err == ""


def test_a_query_without_a_line_is_refused(monkeypatch, capsys):
    monkeypatch.delenv("COMP_LINE", raising=False)

    assert train.main(["-sc", "query=zsh"]) == 2
    assert "COMP_LINE" in capsys.readouterr().err


def test_the_user_s_own_directory_on_the_line_is_looked_into(here, monkeypatch, capsys):
    (here / "mine" / "model").mkdir(parents=True)
    (here / "mine" / "model" / "tiny.yaml").write_text("name: mlp\n")
    monkeypatch.setenv("COMP_LINE", "ava-train --config-dir mine model=")

    assert train.main(["-sc", "query=bash"]) == 0
    assert "model=tiny" in capsys.readouterr().out.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_the_shells_that_hydra_knows(action, shell, capsys):
    assert train.main(["-sc", f"{action}={shell}"]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("request_", ["query=tcsh", "bash", "remove=bash"])
def test_another_shell_is_refused(request_, capsys):
    assert train.main(["-sc", request_]) == 2
    assert "install=bash" in capsys.readouterr().err

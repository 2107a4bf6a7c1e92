from __future__ import annotations

import pytest

from ava.cli import main
from ava.registry import REGISTRIES, REQUIRED


@pytest.mark.parametrize("sort", REGISTRIES)
def test_a_list_names_every_part_and_every_option(sort, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")

    assert main.main(["list", sort]) == 0

    text = capsys.readouterr().out
    for entry in REGISTRIES[sort]:
        line = next(line for line in text.splitlines() if line.split()[:1] == [entry.name])
        assert entry.summary in line
        for name in entry.own:
            default = entry.parameters[name][1]
            assert f"{name}{':' if default is REQUIRED else '='}" in line


def test_optimizers_are_listed_with_paper_and_state_and_what_they_share_once(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    assert main.main(["list", "optimizers"]) == 0

    listed, _, shared = capsys.readouterr().out.partition("options of every optimizer")
    of, about = ({line.split()[0]: line for line in text.splitlines() if line.split()} for text in (listed, shared))
    for name, state in (("adamw", "8 B"), ("lion", "4 B"), ("sgd", "4 B"), ("sophia", "8 B"), ("adafactor", "0 B")):
        assert f" {state} " in of[name]
    assert "https://arxiv.org/abs/2302.06675 " in of["lion"]
    assert [e.name for e in REGISTRIES["optimizers"] if "http" not in of[e.name]] == []
    for option in REGISTRIES["optimizers"]["lion"].shared:
        assert option in about
    assert "only where the gradient of this step agrees" in about["cautious"]
    assert "cautious=" not in listed
    assert "state=factored" in of["adam_adv"]


def test_a_list_of_everything(capsys):
    assert main.main(["list"]) == 0

    text = capsys.readouterr().out
    assert all(sort in text for sort in REGISTRIES)


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["list", "optimisers"], ["'optimisers'", "optimizers", "Did you mean `optimizers`?"]),
        (["trian"], ["'trian'", "Did you mean `train`?"]),
        (["bench", "lop"], ["'lop'", "`ava bench loop`"]),
        (["bench"], ["`ava bench loop`"]),
        (["list", "models", "seed=3"], ["seed", "plugins"]),
    ],
)
def test_bad_input_is_refused(words, fragments, capsys):
    assert main.main(words) == 2

    message = capsys.readouterr().err
    assert message.startswith("ava: ")
    assert all(fragment in message for fragment in fragments)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["list", "--help"], ["bench", "-h"]])
def test_help(words, capsys):
    assert main.main(words) == 0
    assert "ava list" in capsys.readouterr().out


def test_a_list_shows_what_plugins_register(tmp_path, process):
    (tmp_path / "my_parts.py").write_text(
        "from ava.registry import model\n\n@model\ndef my_own_model(spec, /, size: int = 3):\n    'Mine alone.'\n"
    )

    done = process("-m", "ava.cli.main", "list", "models", "plugins=[my_parts]", COLUMNS="200")

    assert done.returncode == 0
    assert "my_own_model" in done.stdout
    assert "Mine alone." in done.stdout


def test_train_is_the_same_command(capsys):
    assert main.main(["train", "optimizer=lino"]) == 2
    assert capsys.readouterr().err.startswith("ava-train: optimizer=lino")

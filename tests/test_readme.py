"""What the README shows works as it stands there."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_plugin_trains(tmp_path):
    code = re.search(r"`curves.py`.*?```python\n(.*?)```", README, re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    (tmp_path / "curves.py").write_text(code, encoding="utf-8")
    words = shlex.split(re.search(r"ava-train (plugins=\[curves\].*)", README)[1])
    done = subprocess.run(
        [sys.executable, "-m", "ava.cli.train", *words, "run_dir=run", "logger=[]"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["eval/loss"] < 0.05


@pytest.mark.parametrize(
    "line", re.findall(r"^(ava-train (?!-m|resume|run_dir|plugins|experiment|data=).*?)(?:  .*)?$", README, re.M)
)
def test_commands_are_valid(line, capsys, monkeypatch, tmp_path):
    from ava.cli.train import main

    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(line, comments=True)[1:], "--cfg", "job"]) == 0


def test_the_refusals_are_quoted_as_they_are(capsys):
    from ava.cli.train import main

    for words, message in re.findall(r"^\$ ava-train (.*)\n(ava-train: .*)$", README, re.M):
        assert main(shlex.split(words)) == 2
        assert capsys.readouterr().err.strip() == message

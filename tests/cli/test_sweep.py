from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys

import pytest

from ava.cli import train
from ava.cli.jobs import Job, run_jobs
from ava.cli.sweep import expand
from tests.cli.conftest import ROOT

SHORT = ["trainer.max_steps=2", "trainer.eval_every=0", "model.width=4", "logger=[]"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["seed=0,1"], [["seed=0"], ["seed=1"]]),
        (["optimizer=adamw,lion", "seed=3"], [["optimizer=adamw", "seed=3"], ["optimizer=lion", "seed=3"]]),
        (["seed=range(3)"], [["seed=0"], ["seed=1"], ["seed=2"]]),
        (["seed=choice(4,5)"], [["seed=4"], ["seed=5"]]),
        (["scheduler=glob(c*,exclude=[cosine*])"], [["scheduler=constant"]]),
        (["optimizer.betas=[0.9,0.99],[0.8,0.9]"], [["optimizer.betas=[0.9,0.99]"], ["optimizer.betas=[0.8,0.9]"]]),
        (["seed=1", "seed=0,1"], [["seed=0"], ["seed=1"]]),
    ],
)
def test_every_combination_is_written_out(overrides, expected):
    assert expand(overrides)[0] == expected


def test_the_last_key_changes_fastest():
    combinations, swept = expand(["optimizer=adamw,lion", "trainer.compile=false", "seed=0,1"])

    assert [(c[0], c[2]) for c in combinations] == [
        ("optimizer=adamw", "seed=0"), ("optimizer=adamw", "seed=1"),
        ("optimizer=lion", "seed=0"), ("optimizer=lion", "seed=1"),
    ]  # fmt: skip
    assert swept == ["optimizer", "seed"]


@pytest.mark.usefixtures("forgetful")
def test_a_failing_run_is_recorded_and_the_rest_go_on(here, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (here / "my_models.py").write_text(
        "from ava.registry import model\n\n@model\ndef my_bug(spec, /):\n    'A bug.'\n    raise LookupError('lost')\n"
    )

    code = train.main(
        ["-m", "model=my_bug,mlp,convnet", "plugins=[my_models]", "sweep.dir=s", "sweep.jobs=2", *SHORT[:2]]
    )

    assert code == 1
    with (here / "s" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["done", "done", "failed"]
    assert rows[2]["overrides"] == "model=my_bug"
    assert "LookupError: lost" in rows[2]["error"]
    values = [float(row["value"]) for row in rows[:2]]
    assert values == sorted(values, reverse=True)
    assert rows[0]["metric"] == "eval/accuracy"
    output = capsys.readouterr().out
    assert "3 runs in s" in output
    assert "[3/3]" in output
    for row in rows[:2]:
        assert (here / row["run"] / "config.yaml").is_file()
        assert (here / f"{row['run']}.log").read_text()


def test_a_bad_combination_starts_nothing(here, capsys):
    assert train.main(["-m", "trainer.accumulate=1,100", "sweep.dir=s"]) == 2

    assert "trainer.accumulate=100" in capsys.readouterr().err
    assert list(here.iterdir()) == []


def job(tmp_path, name, *arguments):
    return Job(name, list(arguments), tmp_path / name, tmp_path / f"{name}.log")


def test_a_run_that_cannot_start_training_tells_its_last_line(here, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    outcomes, code = run_jobs([job(here, "bad", "optimizer=lino"), job(here, "help", "--help")], at_a_time=1)

    assert code == 1
    assert [(outcome.status, outcome.code) for outcome in outcomes] == [("failed", 2), ("done", 0)]
    assert outcomes[0].error.startswith("ava-train: optimizer=lino")
    assert "[1/2] bad  failed" in capsys.readouterr().out


def test_ctrl_c_stops_the_runs_and_still_writes_the_table(tmp_path):
    command = [sys.executable, "-u", "-m", "ava.cli.train", "-m", "seed=0,1", "sweep.dir=s", "trainer.max_steps=100000"]
    sweep = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    assert sweep.stdout is not None
    assert sweep.stdout.readline().startswith("2 runs")
    log = tmp_path / "s" / "0-seed=0.log"
    while not (log.exists() and "step" in log.read_text()):
        assert sweep.poll() is None

    sweep.send_signal(signal.SIGINT)
    output, _ = sweep.communicate(timeout=60)

    assert sweep.returncode == 130
    assert "interrupted" in output
    assert "not started" in output
    assert (tmp_path / "s" / "sweep.csv").is_file()

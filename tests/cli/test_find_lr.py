"""`ava-find-lr`: what it prints, writes and refuses."""

import csv
import json

import pytest

from ava.cli import find_lr, train

QUICK = ["lr_finder.num_steps=30", "lr_finder.min_lr=1e-5", "model.width=8"]


def test_prints_the_suggestion_and_writes_three_files(tmp_path, capsys):
    run_dir = tmp_path / "run"
    assert find_lr.main([*QUICK, "optimizer=lion", f"run_dir={run_dir}"]) == 0
    out = capsys.readouterr().out
    told = json.loads((run_dir / "lr_finder.json").read_text())
    assert out.startswith(f"suggested learning rate {told['suggestion']:.3g} (")
    last = out.splitlines()[-1]
    assert last.endswith(f"model.width=8 optimizer=lion optimizer.lr={told['suggestion']:.3g}")
    assert (run_dir / "lr_finder.png").read_bytes().startswith(b"\x89PNG")
    with (run_dir / "lr_finder.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["lr"]) for row in rows if row["seed"] == "0"] == told["lr"]
    assert float(rows[0]["lr"]) == 1e-5
    assert {row["seed"] for row in rows} == {"0", "1", "2"}
    assert not (run_dir / "config.yaml").exists()
    follow = last.split("ava-train ")[1].split()
    assert train.main([*follow, "trainer.max_steps=2", "logger=[]", f"run_dir={run_dir}"]) == 0


@pytest.mark.parametrize("method", ["steepest", "minimum"])
def test_another_method_and_several_seeds(tmp_path, capsys, method):
    words = [*QUICK, f"lr_finder.method={method}", "lr_finder.seeds=2", f"run_dir={tmp_path / 'run'}"]
    assert find_lr.main(words) == 0
    assert f"({method})" in (out := capsys.readouterr().out)
    assert "each of the 2 seeds alone: " in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer=lino"], "Did you mean `lion`?"),
        (["lr_finder.method=best"], "lr_finder.method=best: must be one of: probes, valley, steepest, minimum"),
        (["lr_finder.max_lr=1e-9"], "lr_finder.max_lr=1e-09: must be above min_lr=1e-07."),
        (["lr_finder.min_lr=1e-9", "lr_finder.max_lr=1e-8"], "the loss never fell by more than its noise"),
        (["optimizer=adafactor", "optimizer.lr=null"], "the optimizer chooses its own learning rate"),
        (["-m"], "there is no option -m"),
    ],
)
def test_refuses_with_one_message(tmp_path, capsys, words, told):
    assert find_lr.main([*words, "model.width=8", f"run_dir={tmp_path / 'run'}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ava-find-lr: ")
    assert told in captured.err
    assert "Traceback" not in captured.err


def test_help(capsys):
    assert find_lr.main(["--help"]) == 0
    assert "ava-find-lr lr_finder.seeds=5" in capsys.readouterr().out

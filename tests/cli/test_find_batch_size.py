"""`ava find-batch-size`: what it prints, writes and refuses."""

import json

import pytest

from ava.cli import train
from ava.cli.find_batch_size import main, read_bytes
from ava.cli.main import main as ava


def test_prints_the_batch_and_writes_one_file(tmp_path, capsys):
    run_dir = tmp_path / "run"
    words = ["model=mlp", "model.width=8", "data.augment=false", "trainer.accumulate=2"]
    assert ava(["find-batch-size", *words, f"run_dir={run_dir}"]) == 0
    out = capsys.readouterr().out
    told = json.loads((run_dir / "batch_size.json").read_text())
    assert out.startswith(
        f"largest batch that fits: {told['batch_size']} samples ({told['micro_batch']} a micro-batch x"
    )
    assert told["ended"] == "data"
    assert {path.name for path in run_dir.iterdir()} == {".lock", "batch_size.json"}
    last = out.splitlines()[-1]
    assert last == f"train with it: ava-train {' '.join(words)} trainer.batch_size={told['batch_size']}"
    follow = last.split("ava-train ")[1].split()
    assert train.main([*follow, "trainer.max_steps=2", "logger=[]", f"run_dir={run_dir}"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer=lino"], "Did you mean `lion`?"),
        (["--memory-limit", "much"], "--memory-limit=much: must be a size with B, KB, MB, GB, KiB, MiB or GiB."),
        (["--memory-limit", "1MiB"], "not even a batch of one sample fits: it takes"),
        (["--memory"], "there is no option --memory"),
    ],
    ids=["override", "size", "too little", "option"],
)
def test_refuses_with_one_message(tmp_path, capsys, words, told):
    assert main([*words, "model.width=8", f"run_dir={tmp_path / 'run'}"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ava find-batch-size: ")
    assert told in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2**31), ("1.5 gb", 1_500_000_000), ("512MiB", 2**29), ("100", 100), ("3KB", 3000)]
)
def test_reads_sizes(text, size):
    assert read_bytes(text) == size


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "--memory-limit 2GiB" in capsys.readouterr().out

"""A resumed run is the run that was never interrupted, bit for bit."""

import json
import shutil

import pytest
import torch

import ava
from ava.checkpoint.checkpoint import load
from ava.errors import InputError

QUICK = ["trainer.batch_size=64", "trainer.max_steps=24", "trainer.log_every=1", "logger=[]", "checkpoint.every=10",
         "checkpoint.keep_last=5", "trainer.eval_every=8", "model.width=8"]  # fmt: skip


OF_THE_MACHINE = ("time", "throughput", "memory", "loader_wait", "utilisation")
OF_THE_SESSION = (
    "loss_trend", "weight_change", "loss_mean", "loss_max", "loss_first", "grad_norm_median", "grad_norm_max",
    "skipped",
)  # fmt: skip
"""They look back to the line before, which a run resumed between two lines cannot do at first."""


def rows(run_dir):
    """What must not depend on when a step was taken."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in OF_THE_MACHINE + OF_THE_SESSION} for line in lines]


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            if key != "seconds":
                same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    else:
        assert one == other


@pytest.fixture
def interrupted(tmp_path):
    """A function that trains a run to its end, and lays beside it a copy that was killed after step 10."""

    def make(*overrides):
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        ava.train([*QUICK, *overrides, f"run_dir={whole}"])
        shutil.copytree(whole, killed)
        for path in (killed / "checkpoints").iterdir():
            if path.name not in ("step-10", "latest"):
                shutil.rmtree(path)
        (killed / "checkpoints" / "latest").write_text("step-10\n")
        (killed / "summary.json").unlink()
        return whole, killed

    return make


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=lion", "scheduler=onecycle"],
        ["optimizer=adamw", "scheduler=cosine", "scheduler.warmup_steps=5", "trainer.ema_decay=0.9"],
        ["optimizer=sgd", "trainer.accumulate=3", "precision=bf16"],
        ["model=vit", "~model.width", "model.dropout=0.1", "optimizer=adamw"],
    ],
    ids=["lion-onecycle", "adamw-cosine-ema", "sgd-accumulate-bf16", "dropout"],
)
def test_resuming_is_bit_for_bit(interrupted, overrides):
    """Step 10 lies in the middle of an epoch (15 steps) and between two evaluations."""
    if "model=vit" in overrides:
        overrides = ["model=vit", "model.width=8", "model.heads=2", "model.layers=1", "model.dropout=0.1"]
    whole, killed = interrupted(*overrides)
    ava.train([f"resume={killed}"])
    same(load(killed / "checkpoints" / "step-24"), load(whole / "checkpoints" / "step-24"))
    assert rows(killed) == rows(whole)


def test_resume_auto_starts_continues_and_recognises_the_end(tmp_path, capsys):
    overrides = [*QUICK, f"run_dir={tmp_path / 'run'}", "resume=auto"]
    first = ava.train(overrides)
    assert first["steps"] == 24
    again = ava.train(overrides)
    assert again["steps"] == 24
    assert again["eval/accuracy"] == first["eval/accuracy"]
    longer = ava.train([*overrides, "trainer.max_steps=30", "scheduler=constant"])
    assert longer["steps"] == 30
    steps = [row["step"] for row in rows(tmp_path / "run") if "loss" in row]
    assert steps == list(range(1, 31))


def test_a_checkpoint_starts_a_new_run_elsewhere(tmp_path):
    ava.train([*QUICK, f"run_dir={tmp_path / 'a'}"])
    before = sorted((tmp_path / "a").rglob("*"))
    ava.train([f"resume={tmp_path / 'a' / 'checkpoints' / 'step-10'}", f"run_dir={tmp_path / 'b'}"])
    assert sorted((tmp_path / "a").rglob("*")) == before
    assert [row["step"] for row in rows(tmp_path / "b") if "loss" in row] == list(range(11, 25))


@pytest.mark.parametrize(
    ("overrides", "part"),
    [(["model.width=16"], "model"), (["optimizer=sgd"], "optimizer"), (["data.augment=false"], None)],
)
def test_resuming_with_other_parts(tmp_path, overrides, part):
    ava.train([*QUICK, f"run_dir={tmp_path / 'run'}"])
    resumed = [f"resume={tmp_path / 'run' / 'checkpoints' / 'step-10'}", *overrides]
    if part is None:
        assert ava.train(resumed)["steps"] == 24
    else:
        with pytest.raises(InputError, match=part):
            ava.train(resumed)
        assert (tmp_path / "run" / "checkpoints" / "step-24").exists()


def test_keeps_the_last_and_the_best(tmp_path):
    keep = ["trainer.eval_every=4", "checkpoint.every=null", "checkpoint.keep_last=1", "checkpoint.keep_best=true"]
    ava.train([*QUICK, *keep, f"run_dir={tmp_path / 'run'}"])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*")}
    assert kept == {"step-24", f"step-{summary['best']['eval/accuracy']['step']}"}


def test_going_back_is_told(tmp_path, capsys):
    ava.train([*QUICK, f"run_dir={tmp_path / 'run'}"])
    capsys.readouterr()
    ava.train([f"resume={tmp_path / 'run' / 'checkpoints' / 'step-10'}", "trainer.max_steps=11"])
    assert (
        "Continuing from step 10: what this run did after it, up to step 24, will be replaced."
        in capsys.readouterr().out
    )


def test_a_newest_checkpoint_that_is_gone_is_told(tmp_path, capsys):
    ava.train([*QUICK, f"run_dir={tmp_path / 'run'}"])
    (tmp_path / "run" / "checkpoints" / "step-24" / "manifest.json").unlink()
    capsys.readouterr()
    ava.train([f"resume={tmp_path / 'run'}"])
    assert "step-24, is missing or not complete: continuing from step 20." in capsys.readouterr().out

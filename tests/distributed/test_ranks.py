"""Several ranks train what one process trains."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

COMMON = ["trainer.max_steps=20", "trainer.batch_size=50", "trainer.log_every=1", "logger=[]", "scheduler=onecycle",
          "model.width=16", "trainer.eval_every=7"]  # fmt: skip


ONE_SIDED = """
import os
from ava.data.digits import digits
from ava.data.source import Data
from ava.errors import InputError
from ava.registry import data

@data(kind="images")
def one_sided(seed: int, /) -> Data:
    "Data that rank 1 lacks."
    if os.environ["RANK"] == "1":
        raise InputError("its disk is not mounted.")
    return digits(seed)
"""


def launch(ranks, *overrides, check=True, **environment):
    command = [sys.executable, "-m"]
    if ranks > 1:
        command += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    command += ["ava.cli.train", *COMMON, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 0 or not check, done.stdout[-1000:] + done.stderr[-3000:]
    return done


def losses(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], [line for line in lines if "eval/loss" in line]


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw"],
        ["optimizer=sgd", "trainer.accumulate=4"],
        ["optimizer=sgd", "optimizer.lr=0.01", "optimizer.sam_rho=0.05", "trainer.accumulate=2"],
        ["optimizer=sophia", "optimizer.estimator=hutchinson", "optimizer.update_period=5"],
        ["optimizer=schedule_free_adamw"],
    ],
    ids=["adamw", "sgd-accumulate", "sam-accumulate", "sophia", "schedule-free"],
)
def test_two_ranks_equal_one(tmp_path, overrides):
    """898 samples in windows of 50 leave 48 for the last; 20 steps cross into the second epoch."""
    launch(1, *overrides, f"run_dir={tmp_path / 'one'}")
    done = launch(2, *overrides, f"run_dir={tmp_path / 'two'}")
    one, evaluations_of_one = losses(tmp_path / "one")
    two, evaluations_of_two = losses(tmp_path / "two")
    assert len(one) == 20
    assert two == pytest.approx(one, rel=1e-4)
    for mine, theirs in zip(evaluations_of_two, evaluations_of_one, strict=True):
        assert mine["eval/loss"] == pytest.approx(theirs["eval/loss"], rel=1e-4)
    assert done.stdout.count("run directory") == 1


def test_more_ranks_than_samples_in_the_last_window(tmp_path):
    """The last window of 898 / 299 holds one sample: the other ranks step without one."""
    arguments = ["optimizer=sgd", "trainer.batch_size=299", "trainer.max_steps=5"]
    launch(1, *arguments, f"run_dir={tmp_path / 'one'}")
    launch(3, *arguments, f"run_dir={tmp_path / 'three'}")
    assert losses(tmp_path / "three")[0] == pytest.approx(losses(tmp_path / "one")[0], rel=1e-4)


def test_bad_input_is_told_once_and_leaves_nothing(tmp_path):
    done = launch(2, "optimizer=lino", f"run_dir={tmp_path / 'run'}", check=False)
    assert done.returncode != 0
    assert done.stderr.count("Did you mean") == 1
    assert not (tmp_path / "run").exists()


def test_bad_input_of_one_rank_is_told_by_all(tmp_path):
    """Rank 1 cannot read its data: rank 0 says so, rather than end without a word or wait for it."""
    (tmp_path / "one_sided.py").write_text(ONE_SIDED)
    arguments = ["plugins=[one_sided]", "task=classification", "data=one_sided", "model=mlp"]
    done = launch(2, *arguments, f"run_dir={tmp_path / 'run'}", check=False, PYTHONPATH=str(tmp_path))
    assert done.returncode != 0
    assert "ava-train: rank 1: data=one_sided: its disk is not mounted." in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_sweep_inside_torchrun_is_refused(tmp_path):
    done = launch(2, "-m", "seed=0,1", f"sweep.dir={tmp_path / 'sweep'}", check=False)
    assert done.returncode != 0
    assert "torchrun" in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_two_ranks_find_the_rate_that_one_finds(tmp_path):
    """Both stop at the same step, restore, and train on with the same rate."""
    finder = ["lr_finder.enabled=true", "lr_finder.num_steps=60", "lr_finder.min_lr=1e-5", "lr_finder.max_lr=1000",
              "optimizer=adamw", "trainer.accumulate=2"]  # fmt: skip
    launch(1, *finder, f"run_dir={tmp_path / 'one'}")
    launch(2, *finder, f"run_dir={tmp_path / 'two'}")
    one, two = (json.loads((tmp_path / name / "lr_finder.json").read_text()) for name in ("one", "two"))
    assert one["stopped"] == two["stopped"] == "diverged"
    assert len(two["loss"]) == len(one["loss"]) < 60
    assert two["suggestion"] == pytest.approx(one["suggestion"], rel=1e-3)
    assert losses(tmp_path / "two")[0][:5] == pytest.approx(losses(tmp_path / "one")[0][:5], rel=1e-3)


def test_two_ranks_change_the_rate_where_one_does(tmp_path):
    """The rate is so low that nothing improves: a plateau, at the same step on all ranks."""
    driven = ["optimizer=adamw", "optimizer.lr=1e-7", "scheduler=adaptive", "scheduler.patience=3",
              "scheduler.loss_threshold=0.05", "trainer.max_steps=160", "trainer.log_every=5"]  # fmt: skip
    changes = []
    for ranks in (1, 2):
        launch(ranks, *driven, f"run_dir={tmp_path / str(ranks)}")
        lines = (tmp_path / str(ranks) / "incidents.jsonl").read_text().splitlines()
        changes.append([(row["step"], row["action"], row["lr_after"]) for row in map(json.loads, lines)])
    assert changes[0] == changes[1] != []

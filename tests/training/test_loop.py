"""What happens between steps: logs, evaluations, checkpoints, stops and failures."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import ava
from ava.data.arrays import ImageArray
from ava.errors import InputError, Interrupted, TrainingFailed
from ava.training.step import training_step

QUICK = ["model.width=8", "logger=[]", "trainer.batch_size=64", "trainer.log_every=5", "trainer.eval_every=0",
         "trainer.max_steps=20"]  # fmt: skip


def lines(run_dir, name="metrics.jsonl"):
    return [json.loads(line) for line in (run_dir / name).read_text().splitlines()]


def test_the_run_directory_is_the_contracts(tmp_path):
    run_dir = tmp_path / "run"
    ava.train([*QUICK, "logger=[tensorboard]", "trainer.eval_every=10", f"run_dir={run_dir}"])
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoints", "tb"} <= {p.name for p in run_dir.iterdir()}
    logged = [row for row in lines(run_dir) if "loss" in row]
    assert [row["step"] for row in logged] == [5, 10, 15, 20]
    for row in logged:
        assert row.keys() >= {"step", "time", "loss", "lr", "grad_norm", "throughput", "memory"}
    assert [row["step"] for row in lines(run_dir) if "eval/accuracy" in row] == [10, 20]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "done"
    assert {b["name"] for b in summary["baselines"]} == {"majority class", "linear model"}
    assert summary["steps"] == 20
    assert summary["versions"]["torch"]


def test_epochs_and_steps_limit_together(tmp_path):
    """898 samples are 15 windows of 64."""
    by_epoch = ava.train([*QUICK, "trainer.max_steps=100", "trainer.max_epochs=1", f"run_dir={tmp_path / 'a'}"])
    by_step = ava.train([*QUICK, "trainer.max_steps=7", "trainer.max_epochs=1", f"run_dir={tmp_path / 'b'}"])
    assert (by_epoch["steps"], by_step["steps"]) == (15, 7)


def test_stops_early_when_nothing_improves(tmp_path):
    impatient = ["optimizer.lr=1e-12", "trainer.eval_every=2", "trainer.early_stop_patience=3"]
    summary = ava.train([*QUICK, *impatient, f"run_dir={tmp_path / 'run'}"])
    assert summary["status"] == "stopped early"
    assert summary["steps"] < 20
    assert (tmp_path / "run" / "checkpoints" / f"step-{summary['steps']}").is_dir()


def test_an_early_stop_is_an_end_like_any_other(tmp_path):
    """Its last step is logged and saved, whatever was due there, and a resume has nothing left to do."""
    run_dir = tmp_path / "run"
    impatient = ["optimizer.lr=1e-12", "trainer.eval_every=2", "trainer.early_stop_patience=3"]
    saving = ["checkpoint.every=50", "checkpoint.keep_best=false"]
    last = ava.train([*QUICK, *impatient, *saving, "trainer.log_every=50", f"run_dir={run_dir}"])["steps"]
    assert (run_dir / "checkpoints" / f"step-{last}").is_dir()
    rows = lines(run_dir)
    assert [row["step"] for row in rows if "loss" in row] == [last]
    assert ava.train([f"resume={run_dir}"])["steps"] == last
    assert lines(run_dir) == rows


def test_an_evaluation_that_a_signal_cut_off_is_made_up(tmp_path, monkeypatch):
    """Told to stop in step 10 of 20: the checkpoint comes at once, the evaluation that was due with the resumed run."""
    run_dir = tmp_path / "run"

    def step(run, window, stop):
        return training_step(run, window, stop=stop or run.step == 9)

    monkeypatch.setattr("ava.training.loop.training_step", step)
    with pytest.raises(Interrupted):
        ava.train([*QUICK, "trainer.eval_every=10", f"run_dir={run_dir}"])
    monkeypatch.undo()
    assert not [row for row in lines(run_dir) if "eval/loss" in row]
    ava.train([f"resume={run_dir}"])
    assert [row["step"] for row in lines(run_dir) if "eval/loss" in row] == [10, 20]


def test_a_monitor_that_is_no_metric_is_refused_before_training(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint.monitor=eval/acuracy: .*Did you mean `eval/accuracy`"):
        ava.train([*QUICK, "checkpoint.monitor=eval/acuracy", "checkpoint.mode=max", f"run_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run").exists()


def test_a_breakdown_names_its_step_and_is_kept(tmp_path, monkeypatch):
    run_dir = tmp_path / "run"
    fetch = ImageArray.fetch

    def failing(self, indices, epoch):
        if len(indices) < 64:
            raise OSError(5, "Input/output error", "shard-3.bin")
        return fetch(self, indices, epoch)

    monkeypatch.setattr(ImageArray, "fetch", failing)
    with pytest.raises(TrainingFailed, match=r"^step 15: OSError: .*shard-3.bin.*incidents.jsonl") as failure:
        ava.train([*QUICK, f"run_dir={run_dir}"])
    assert isinstance(failure.value.__cause__, OSError)
    assert [(row["step"], row["kind"]) for row in lines(run_dir, "incidents.jsonl")] == [(15, "error")]
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "failed"


def test_a_diverged_run_says_where_and_keeps_its_checkpoints(tmp_path):
    run_dir = tmp_path / "run"
    with pytest.raises(TrainingFailed, match=r"step \d+: the gradient is not finite") as failure:
        ava.train([*QUICK, "optimizer=sgd", "optimizer.lr=1e30", "trainer.clip=none", f"run_dir={run_dir}"])
    incident = lines(run_dir, "incidents.jsonl")[0]
    assert incident["step"] == failure.value.step
    assert str(run_dir / "incidents.jsonl") in str(failure.value)
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_a_checkpoint(tmp_path, number, code):
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "ava.cli.train", *QUICK, "trainer.max_steps=100000", f"run_dir={run_dir}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (run_dir / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == code, message
    assert "Traceback" not in message
    assert f"resume={run_dir}" in message
    latest = (run_dir / "checkpoints" / "latest").read_text().strip()
    step = int(latest.removeprefix("step-"))
    resumed = ava.train([f"resume={run_dir}", f"trainer.max_steps={step + 3}"])
    assert resumed["steps"] == step + 3


def test_deterministic_runs_repeat_bit_for_bit(tmp_path):
    rows = []
    for name in ("a", "b"):
        ava.train([*QUICK, "trainer.deterministic=true", f"run_dir={tmp_path / name}"])
        rows.append([(row.get("loss"), row.get("eval/loss")) for row in lines(tmp_path / name)])
    assert rows[0] == rows[1]


def test_profile_leaves_a_trace(tmp_path):
    ava.train([*QUICK, "trainer.profile=true", f"run_dir={tmp_path / 'run'}"])
    trace = json.loads((tmp_path / "run" / "profile" / "trace.json").read_text())
    assert any("conv" in str(event.get("name")) for event in trace["traceEvents"])
    assert "conv" in (tmp_path / "run" / "profile" / "operators.txt").read_text()


def test_batch_norm_is_told_of(tmp_path, capsys):
    batch_norm = ["model=resnet", "model.norm=batch", "trainer.accumulate=2", "trainer.max_steps=1"]
    ava.train([*QUICK, *batch_norm, f"run_dir={tmp_path / 'run'}"])
    assert "normalises over the batch" in capsys.readouterr().out

"""A schedule in a run: its length, skipped steps, extension of a finished run, phases."""

import itertools
import json
import shutil

import pytest
import torch

import ava
from ava.checkpoint.checkpoint import load
from ava.data.loader import Position, Window
from ava.optimization import get_scheduler
from ava.training.journal import Journal
from ava.training.step import training_step
from tests.training.helpers import small_run
from tests.training.test_resume import QUICK, rows, same


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (["trainer.max_epochs=2"], 58),  # 898 samples: 28 whole batches of 32, and one of 2
        (["trainer.max_epochs=2", "trainer.accumulate=4"], 58),
        (["trainer.max_epochs=3", "trainer.max_steps=10"], 10),
        (["trainer.max_epochs=1", "trainer.max_steps=1000"], 29),
        (["trainer.max_epochs=1", "trainer.batch_size=898"], 1),
    ],
)
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_length_counts_optimizer_steps(length, steps, ranks):
    run, plan = small_run("trainer.max_steps=null", "scheduler=onecycle", *length)
    assert (plan.total_steps, run.scheduler.total_steps) == (steps, steps)
    run.loader.world_size = ranks
    taken = [window.position for window in itertools.islice(run.loader.plans(Position()), steps)]
    if "trainer.max_steps=10" not in length:
        assert taken[-1] == Position(int(length[0][-1]), 0)  # the last step ends the last epoch


def test_the_rates_of_a_run_are_those_of_the_schedule(tmp_path):
    """Uneven last batches, micro-batches and evaluations between change nothing."""
    ava.train(
        ["trainer.max_epochs=2", "trainer.batch_size=250", "trainer.accumulate=3", "trainer.log_every=1", "logger=[]",
         "trainer.eval_every=3", "scheduler=onecycle", "optimizer.lr=0.01", "model.width=8",
         f"run_dir={tmp_path / 'r'}"]
    )  # fmt: skip
    used = [row["lr"] for row in rows(tmp_path / "r") if "loss" in row]
    shape = get_scheduler("onecycle")
    assert used == pytest.approx([0.01 * shape(step, 8).lr for step in range(8)], rel=1e-12)


def test_a_skipped_step_does_not_advance_the_schedule():
    run, _ = small_run("scheduler=linear", "trainer.max_steps=10")
    windows = list(itertools.islice(run.loader.windows(Position()), 3))
    training_step(run, windows[0])
    before = run.scheduler.state_dict()["step"], run.optimizer.param_groups[0]["lr"]
    weights = [p.detach().clone() for p in run.parameters]
    bad = [{**batch, "inputs": batch["inputs"] * float("nan")} for batch in windows[1].batches]
    training_step(run, Window(bad, True, windows[1].num_samples, windows[1].position))
    assert (run.scheduler.state_dict()["step"], run.optimizer.param_groups[0]["lr"]) == before
    assert all(torch.equal(p, w) for p, w in zip(run.parameters, weights, strict=True))
    training_step(run, windows[2])
    assert run.scheduler.state_dict()["step"] == before[0] + 1


def test_phases():
    run, _ = small_run("scheduler=wsd", "scheduler.decay_steps=5", "scheduler.warmup_steps=3", "trainer.max_steps=12")
    phases = []
    for window in itertools.islice(run.loader.windows(Position()), 12):
        phases.append(run.phase)
        training_step(run, window)
    assert phases == ["warmup"] * 3 + ["main"] * 4 + ["cooldown"] * 5


@pytest.mark.parametrize("schedule", [["scheduler=wsd", "scheduler.decay_steps=6"], ["scheduler=constant"]])
def test_a_finished_run_is_extended_as_if_it_had_been_longer(tmp_path, schedule):
    """From the checkpoint before the decay, which stays whatever comes after it."""
    quick = [*QUICK, *schedule, "checkpoint.every=12", "checkpoint.keep_last=1", "checkpoint.keep_best=false"]
    ava.train([*quick, f"run_dir={tmp_path / 'short'}"])
    ava.train([*quick, "trainer.max_steps=40", f"run_dir={tmp_path / 'long'}"])
    start = "step-18" if "scheduler=wsd" in schedule else "step-24"
    resume = [f"resume={tmp_path / 'short' / 'checkpoints' / start}", "trainer.max_steps=40"]
    ava.train(resume)
    used = [{r["step"]: r for r in rows(tmp_path / name) if "loss" in r} for name in ("short", "long")]
    assert used[0] == used[1]
    one, other = (load(tmp_path / name / "checkpoints" / "step-40") for name in ("short", "long"))
    same(one, other)


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (["scheduler=cosine"], "laid out over 24 steps and is now over 48: the learning rate goes on at 0.0005, where"),
        (["scheduler=wsd", "scheduler.decay_steps=6"], "resume from checkpoints/step-18."),
        (["scheduler=constant"], "the schedule goes on from the rate it had."),
    ],
)
def test_extending_says_what_happens(tmp_path, capsys, schedule, said):
    ava.train([*QUICK, *schedule, "optimizer.lr=1e-3", f"run_dir={tmp_path / 'run'}"])
    capsys.readouterr()
    ava.train([f"resume={tmp_path / 'run'}", "trainer.max_steps=48"])
    assert said in capsys.readouterr().out


def test_hyperparameters_and_groups_in_a_run(tmp_path):
    """Also after a resume, to the bit."""
    words = [*QUICK, "optimizer.weight_decay=0.1",
             "scheduler.also={weight_decay: linear, beta2: {name: cosine, floor: 0.95}}",
             "optimizer.groups=[{match: 'head*', lr: 1e-4, scheduler: constant}]", "scheduler.warmup_steps=0.25",
             "scheduler.warmup_type=exponential"]  # fmt: skip
    ava.train([*words, f"run_dir={tmp_path / 'whole'}"])
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-24")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "step-20")
    (tmp_path / "again" / "checkpoints" / "latest").write_text("step-10\n")
    ava.train([f"resume={tmp_path / 'again' / 'checkpoints' / 'step-10'}"])
    same(*(load(tmp_path / name / "checkpoints" / "step-24") for name in ("whole", "again")))
    groups = load(tmp_path / "whole" / "checkpoints" / "step-24")["optimizer"]["groups"]
    head = [group for group in groups if any(name.startswith("head") for name in group["names"])]
    assert all(group["lr"] == 1e-4 for group in head)
    assert [group["weight_decay"] for group in groups if group["weight_decay"]] == []
    used_last = 0.999 * get_scheduler("cosine")(23, 24, floor=0.95).lr
    assert all(group["betas"][1] == pytest.approx(used_last) for group in groups)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scheduler=plateau", "trainer.eval_every=0"], "Give trainer.eval_every."),
        (["scheduler.also={weight_decay: plateau}"], "driven by a measured value"),
    ],
)
def test_what_drives_a_schedule_has_to_be_there(words, told):
    with pytest.raises(ava.errors.InputError, match=told):
        small_run(*words)


DRIVEN = {
    "plateau": ["scheduler=plateau", "scheduler.patience=1", "trainer.eval_every=4", "optimizer.lr=1e-5"],
    "adaptive": ["scheduler=adaptive", "scheduler.patience=3", "scheduler.loss_threshold=0.05", "optimizer.lr=1e-7",
                 "trainer.log_every=4", "scheduler.warmup_steps=2"],
}  # fmt: skip


@pytest.mark.parametrize("name", DRIVEN)
def test_a_driven_schedule_changes_resumes_and_is_recorded(tmp_path, capsys, name):
    """Rates so low that nothing improves; step 10 lies between two lines of the log."""
    words = [*QUICK, "trainer.max_steps=160", "checkpoint.keep_last=20", *DRIVEN[name]]
    ava.train([*words, f"run_dir={tmp_path / 'whole'}"])
    assert "note " in capsys.readouterr().out
    told = [json.loads(line) for line in (tmp_path / "whole" / "incidents.jsonl").read_text().splitlines()]
    assert {row["kind"] for row in told} == {"plateau"}
    assert all(row["lr_after"] < row["lr_before"] for row in told)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    ava.train([f"resume={tmp_path / 'again' / 'checkpoints' / 'step-10'}"])
    same(*(load(tmp_path / run / "checkpoints" / "step-160") for run in ("whole", "again")))
    assert rows(tmp_path / "whole") == rows(tmp_path / "again")


def test_losses_of_the_warmup_drive_nothing():
    run, _ = small_run("scheduler=adaptive", "scheduler.warmup_steps=5", "trainer.max_steps=9")
    journal = Journal(run)
    for window in itertools.islice(run.loader.windows(Position()), 8):
        journal.add(training_step(run, window))
    journal.fetch()
    assert len(run.unheard) == 3

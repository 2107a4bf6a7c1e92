"""The LR range test inside a run: it changes nothing, sees what the training would see, and its suggestion is used."""

import json

import pytest
import torch

import ava
from ava import rng
from ava.checkpoint.checkpoint import load
from ava.errors import InputError
from ava.optimization.learning_rate.finder.range_test import LRFinderConfig
from ava.training import range_test as module
from ava.training.range_test import probe, range_test
from ava.training.step import training_step
from tests.training.helpers import small_run, weights
from tests.training.test_resume import QUICK, rows, same

CONFIG = LRFinderConfig(num_steps=12)

CASES = {
    "adamw": ["optimizer=adamw"],
    "lion, int8, averages, micro-batches": ["optimizer=lion", "optimizer.state=int8", "trainer.ema_decay=0.9",
                                            "trainer.accumulate=3"],
    "sophia": ["optimizer=sophia"],
    "prodigy": ["optimizer=prodigy"],
    "schedule-free, bf16": ["optimizer=schedule_free_adamw", "scheduler=constant", "precision=bf16"],
    "muon, clipped": ["optimizer=muon", "scheduler=onecycle"],
    "sam": ["optimizer=sgd", "optimizer.sam_rho=0.05"],
    "fused backward": ["optimizer=adamw", "optimizer.fused_backward=true", "trainer.clip=none"],
}  # fmt: skip


def everything(run):
    state = run.state()
    state["progress"].pop("seconds")
    state["momenta"] = [dict(group, params=None) for group in run.optimizer.param_groups]
    state["modes"] = [m.training for m in run.model.modules()]
    return state


@pytest.mark.parametrize("steps_before", [0, 3])
@pytest.mark.parametrize("case", CASES)
def test_the_run_is_afterwards_what_it_was(case, steps_before):
    """To the bit; and it goes on as a run that was never tested."""
    runs = [small_run(*CASES[case], "model.width=8")[0] for _ in range(2)]
    for run in runs:
        ava.training.determinism.seed_everything(1)
        run.network.train()
        windows = run.loader.windows(run.position)
        for _ in range(steps_before):
            training_step(run, next(windows))
        if run is runs[0]:
            before, random = everything(run), rng.capture()
            curves = range_test(run, CONFIG, num_seeds=2)
            probe(run, 1e-3, 5)
            same(everything(run), before)
            same(rng.capture(), random)
            assert curves[0].loss != curves[1].loss
        for window, _ in zip(run.loader.windows(run.position), range(3), strict=False):
            training_step(run, window)
    assert torch.equal(*map(weights, runs))


@pytest.mark.parametrize("error", [RuntimeError("a broken layer"), KeyboardInterrupt()])
def test_also_where_the_test_breaks_off(error, monkeypatch):
    run, _ = small_run("optimizer=adamw", "trainer.ema_decay=0.9")
    before, random = everything(run), rng.capture()

    def step(run, window):
        report = training_step(run, window)
        if run.step == 5:
            raise error
        return report

    monkeypatch.setattr(module, "training_step", step)
    for search in (lambda: range_test(run, CONFIG), lambda: probe(run, 1e-3, 10)):
        with pytest.raises(type(error)):
            search()
    same(everything(run), before)
    same(rng.capture(), random)


def test_groups_keep_their_ratio(monkeypatch):
    run, _ = small_run("optimizer=adamw", "optimizer.lr=1e-3", "optimizer.groups=[{match: 'head*', lr: 5e-3}]")
    seen = []

    def step(run, window):
        seen.append([group["lr"] for group in run.optimizer.param_groups])
        return training_step(run, window)

    monkeypatch.setattr(module, "training_step", step)
    range_test(run, CONFIG)
    assert {round(max(rates) / min(rates), 9) for rates in seen} == {5.0}
    assert [min(rates) for rates in seen][:: len(seen) - 1] == pytest.approx([1e-7, 10.0], rel=1e-9)


FIND = ["lr_finder.enabled=true", "lr_finder.num_steps=40", "lr_finder.min_lr=1e-5", "optimizer.lr=1e-6",
        "optimizer.groups=[{match: 'head*', lr: 2e-6}]"]  # fmt: skip


def test_the_suggestion_is_trained_with_and_recorded(tmp_path, capsys):
    """As if it had been given; a resumed run neither searches again nor forgets it."""
    words = [*QUICK, "optimizer=adamw", "scheduler=onecycle"]
    ava.train([*words, *FIND, f"run_dir={tmp_path / 'found'}"])
    assert "The range test suggests a learning rate of" in capsys.readouterr().out
    told = json.loads((tmp_path / "found" / "lr_finder.json").read_text())
    lr = told["suggestion"]
    assert 1e-4 < lr < 0.1
    assert (tmp_path / "found" / "lr_finder.png").stat().st_size > 10_000
    given = [f"optimizer.lr={lr!r}", f"optimizer.groups=[{{match: 'head*', lr: {2e-6 * (lr / 1e-6)!r}}}]"]
    ava.train([*words, *given, f"run_dir={tmp_path / 'given'}"])
    a, b = (load(tmp_path / name / "checkpoints" / "step-24") for name in ("found", "given"))
    same(a["model"], b["model"])
    assert rows(tmp_path / "found") == rows(tmp_path / "given")
    for again in (["resume=auto", *words, *FIND, f"run_dir={tmp_path / 'found'}"], [f"resume={tmp_path / 'found'}"]):
        ava.train([*again, "trainer.max_steps=26"])
        assert "The range test suggests" not in capsys.readouterr().out
    config = (tmp_path / "found" / "config.yaml").read_text()
    assert f"lr: {lr!r}" in config
    ava.train([f"resume={tmp_path / 'found'}", "optimizer.lr=0.5", "trainer.max_steps=27"])
    assert "lr: 0.5" in (tmp_path / "found" / "config.yaml").read_text()
    ava.train([f"resume={tmp_path / 'found'}", "optimizer.groups=[{match: 'head*', lr: 0.25}]", "trainer.max_steps=28"])
    config = (tmp_path / "found" / "config.yaml").read_text()
    assert "lr: 0.5" in config
    assert "lr: 0.25" in config


def test_without_a_suggestion_nothing_is_trained(tmp_path):
    words = [*QUICK, "lr_finder.enabled=true", "lr_finder.min_lr=1e-9", "lr_finder.max_lr=1e-8",
             f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    with pytest.raises(InputError, match=r"the loss never fell by more than its noise.*lr_finder\.png shows"):
        ava.train(words)
    assert {p.name for p in (tmp_path / "run").iterdir()} - {".lock"} == {
        "lr_finder.png", "lr_finder.csv", "lr_finder.json",
    }  # fmt: skip
    ava.train([*QUICK, f"run_dir={tmp_path / 'run'}"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lr_finder.min_lr=20"], "lr_finder.max_lr=10.0: must be above min_lr=20"),
        (["lr_finder.enabled=true", "optimizer=adafactor", "optimizer.lr=null"], "optimizer.lr, which is null"),
        (["lr_finder.num_steps=3"], "lr_finder.num_steps=3: must be a whole number >= 10"),
    ],
)
def test_what_cannot_be_is_refused(words, told):
    with pytest.raises(InputError, match=told):
        small_run(*words)


def test_a_run_that_has_begun_does_not_look_for_its_rate(tmp_path):
    ava.train([*QUICK, f"run_dir={tmp_path / 'run'}"])
    with pytest.raises(InputError, match="looks for its learning rate before its first step"):
        ava.train([f"resume={tmp_path / 'run'}", "lr_finder.enabled=true", "trainer.max_steps=30"])


def test_an_optimizer_that_chooses_its_rate_trains(tmp_path):
    ava.train([*QUICK, "optimizer=adafactor", "optimizer.lr=null", "scheduler=constant", f"run_dir={tmp_path / 'run'}"])
    assert all("lr" not in row for row in rows(tmp_path / "run") if "loss" in row)

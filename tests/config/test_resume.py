from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ava.config.compose import compose
from ava.config.resume import prepare, resumed
from ava.config.saved import load_saved, same_run, to_yaml
from ava.errors import InputError


def make_run(folder: Path, overrides: list[str], step: int | None = 3) -> Path:
    """Write what a run leaves behind that resuming looks at."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(compose(overrides)))
    if step is not None:
        (folder / "checkpoints" / f"step-{step}").mkdir(parents=True)
        (folder / "checkpoints" / f"step-{step}" / "manifest.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "overrides", [[], ["optimizer=sgd", "optimizer.lr=1e-5", "trainer.ema_decay=0.9"], ["experiment=gpt_stdlib"]]
)
def test_a_configuration_survives_being_saved(overrides, tmp_path):
    config = compose(overrides)
    (tmp_path / "config.yaml").write_text(to_yaml(config))

    assert load_saved(tmp_path / "config.yaml") == config


def test_without_resume_a_run_is_new(here):
    assert prepare([]) == (compose([]), None)


def test_only_what_is_named_is_replaced(here):
    run = make_run(here / "run", ["optimizer=sgd", "optimizer.momentum=0.5", "model.width=8", "trainer.max_steps=10"])

    config = resumed(run / "config.yaml", ["trainer.max_steps=20", "optimizer.lr=0.3"])

    assert config.optimizer.name == "sgd"
    assert (config.optimizer.options["momentum"], config.optimizer.options["lr"]) == (0.5, 0.3)
    assert (config.model.options["width"], config.trainer.max_steps) == (8, 20)


def test_a_named_group_is_replaced_whole(here):
    run = make_run(here / "run", ["scheduler.warmup_steps=5", "trainer.batch_size=32"])

    config = resumed(run / "config.yaml", ["scheduler=linear"])

    assert config.scheduler == compose(["scheduler=linear"]).scheduler
    assert config.trainer.batch_size == 32


@pytest.mark.parametrize("spelling", ["run", "run/checkpoints", "run/checkpoints/step-3"])
def test_a_path_continues_in_its_own_directory(spelling, here):
    run = make_run(here / "run", ["seed=5"])

    config, plan = prepare([f"resume={spelling}"])

    assert config.seed == 5
    assert plan.checkpoint.resolve() == run / "checkpoints" / "step-3"
    assert (Path(config.run_dir), plan.run_dir, plan.new_run) == (run, run, False)


def test_another_directory_makes_a_new_run_from_the_checkpoint(here):
    make_run(here / "run", ["seed=5"])

    config, plan = prepare(["resume=run", "run_dir=other"])

    assert (config.seed, config.run_dir) == (5, "other")
    assert (plan.run_dir, plan.new_run) == (Path("other"), True)


def test_the_same_task_may_be_named_again_but_no_other(here):
    make_run(here / "run", ["task=digits", "task.label_smoothing=0.1"])

    config, _ = prepare(["resume=run", "task=digits"])
    assert config.task.options["label_smoothing"] == 0.1

    with pytest.raises(InputError, match="task=stdlib_lm: a run cannot change its task"):
        prepare(["resume=run", "task=stdlib_lm"])


def test_the_same_experiment_may_be_named_again_but_no_other(here):
    make_run(here / "same", ["experiment=gpt_stdlib", "seed=3"])
    make_run(here / "other", ["task=stdlib_lm"])

    config, _ = prepare(["resume=same", "experiment=gpt_stdlib", "seed=3"])
    assert same_run(config, compose(["experiment=gpt_stdlib", "seed=3"]))

    with pytest.raises(InputError, match="it would change"):
        prepare(["resume=other", "experiment=gpt_stdlib"])


def test_what_is_named_is_checked_with_what_was_saved(here):
    make_run(here / "run", ["trainer.max_steps=10", "trainer.batch_size=8"])

    with pytest.raises(InputError, match=r"trainer\.accumulate=9"):
        prepare(["resume=run", "trainer.accumulate=9"])
    with pytest.raises(InputError, match=r"Did you mean `optimizer\.lr`"):
        prepare(["resume=run", "optimizer.lrr=9"])


@pytest.mark.parametrize("change", ["seed: 5", "seed: x", "lr: 3", "task: null", "model: {name: convnet, width: -1}"])
def test_a_saved_configuration_is_checked_too(change, here):
    run = make_run(here / "run", [])
    saved = run / "config.yaml"
    key = change.partition(":")[0]
    lines = saved.read_text().splitlines()
    kept = "\n".join(line for line in lines if not line.startswith(f"{key}:"))
    if key in ("task", "model"):
        start = lines.index(f"{key}:")
        stop = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" "))
        kept = "\n".join(lines[:start] + lines[stop:])
    saved.write_text(f"{kept}\n{change}\n")

    if change == "seed: 5":
        assert prepare(["resume=run"])[0].seed == 5
    else:
        with pytest.raises(InputError, match=r"config\.yaml"):
            prepare(["resume=run"])


def test_a_saved_configuration_executes_and_interpolates_nothing(here, monkeypatch):
    run = make_run(here / "run", [])
    text = (run / "config.yaml").read_text().replace("run_dir: null", "run_dir: ${oc.env:HOME}")
    (run / "config.yaml").write_text(text)
    assert load_saved(run / "config.yaml").run_dir == "${oc.env:HOME}"

    (run / "config.yaml").write_text(text + "_target_: os.system\n")
    with pytest.raises(InputError, match="_target_"):
        prepare(["resume=run"])


@pytest.mark.parametrize("text", ["a: " + "[" * 500 + "]" * 500, "- 1", "{", "a: &a [*a]", "x" * (1 << 21)])
def test_a_spoiled_saved_configuration_is_refused(text, here):
    run = make_run(here / "run", [])
    (run / "config.yaml").write_text(text)

    with pytest.raises(InputError, match=r"config\.yaml"):
        prepare(["resume=run"])


def test_plugins_of_a_saved_run_are_named_again(here):
    run = make_run(here / "run", [])
    text = (run / "config.yaml").read_text().replace("plugins: []", "plugins: [my_code]")
    (run / "config.yaml").write_text(text)
    (here / "my_code.py").write_text("raise SystemExit('imported')\n")

    with pytest.raises(InputError, match=r"Add `plugins=\[my_code\]`"):
        prepare(["resume=run"])


def test_auto_continues_the_given_directory_once_it_has_a_checkpoint(here):
    arguments = ["run_dir=run", "resume=auto", "seed=4"]
    config, plan = prepare(arguments)
    assert (plan, config.run_dir) == (None, "run")

    make_run(here / "run", ["run_dir=run", "seed=4"])
    config, plan = prepare(arguments)
    assert (plan.run_dir, plan.new_run) == (Path("run"), False)


def test_auto_checks_what_is_named_against_the_run_it_continues(here):
    make_run(here / "run", ["optimizer=sgd"])

    config, _ = prepare(["run_dir=run", "resume=auto", "optimizer.momentum=0.5"])

    assert config.optimizer.options["momentum"] == 0.5


def test_auto_tells_all_problems_as_they_are(here):
    with pytest.raises(InputError, match=r"^2 problems"):
        prepare(["resume=auto", "seed=-1", "optimizer.lr=0"])


def test_auto_finds_the_newest_run_of_the_same_configuration(here):
    runs = [("older", ["seed=1"], 3), ("newer", ["seed=1"], 3), ("other", ["seed=2"], 3), ("bare", ["seed=1"], None)]
    for age, (name, overrides, step) in enumerate(runs):
        run = make_run(here / "outputs" / "2026-01-01" / name, overrides, step)
        os.utime(run / "config.yaml", (1000 + age, 1000 + age))
    (here / "outputs" / "2026-01-01" / "spoiled").mkdir()
    (here / "outputs" / "2026-01-01" / "spoiled" / "config.yaml").write_text("{")

    _, plan = prepare(["seed=1", "resume=auto"])
    assert plan.run_dir.name == "newer"
    assert prepare(["seed=3", "resume=auto"])[1] is None


def test_where_and_how_many_at_a_time_do_not_make_another_run(here):
    config = compose([])

    assert same_run(config, dataclasses.replace(config, run_dir="x", resume="auto"))
    assert same_run(config, compose(["sweep.jobs=3"]))
    assert not same_run(config, compose(["seed=1"]))

"""`ava schedule`: what it says is what a training would do, and nothing but its files is left."""

from __future__ import annotations

import csv
import re
import time

import pytest

import ava
from ava.cli import main, train
from ava.config import parts
from ava.config.compose import compose
from ava.config.preview_steps import find_spans, spread
from ava.distributed.world import join
from tests.cli.conftest import forgetful, here
from tests.cli.test_train import HEAVY, IMPORTS

__all__ = ["forgetful", "here"]

SMALL = ["model.width=4", "logger=[]"]
PLUGIN = """
import torch
from torch import nn

from ava.optimization.learning_rate.factors import Factors
from ava.registry import model, scheduler


@model
class MyModel(nn.Module):
    'A model that reads its weights as it is built.'

    def __init__(self, spec, /, width: int = 4):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.scale = float(self.layer.weight.std())

    def forward(self, inputs):
        return self.layer(inputs.flatten(1))


@scheduler(metric="loss")
class my_driven:
    'Halves when told.'

    def __init__(self, *, patience: int = 3):
        self.factor = 1.0

    def __call__(self, step, total, /):
        return Factors(self.factor)

    def observe(self, step, value): ...

    def state_dict(self): return {}

    def load_state_dict(self, state, /): ...
"""


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no cell of a table is folded."""
    monkeypatch.setenv("COLUMNS", "160")


def show(capsys, *words):
    assert main.main(["schedule", *words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def line(text, *beginning):
    """The words of the line that begins so."""
    return next(words for words in map(str.split, text.splitlines()) if words[: len(beginning)] == list(beginning))


def test_defaults(here, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    text = show(capsys)
    assert line(text, "total") == ["total", "2,000", "steps", "(trainer.max_steps)"]
    assert "\u28c0" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert "written to schedule.png" in text
    assert [path.name for path in here.iterdir()] == ["schedule.png"]
    assert (here / "schedule.png").read_bytes().startswith(b"\x89PNG")


def test_the_numbers_are_those_of_the_training(here, capsys):
    words = [*SMALL, "optimizer=lion", "optimizer.weight_decay=0.1", "scheduler=onecycle", "trainer.max_steps=30",
             "scheduler.also={weight_decay: cosine}"]  # fmt: skip
    text = show(capsys, *words, "--csv", "s.csv", "--output", "s.svg")
    assert sorted(path.name for path in here.iterdir()) == ["s.csv", "s.svg"]
    with (here / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    ava.train([*words, "trainer.log_every=1", "trainer.eval_every=0", "run_dir=r"])

    logged = re.findall(r'"lr": ([^,}]+)', (here / "r" / "metrics.jsonl").read_text())
    assert [float(row["lr"]) for row in rows] == pytest.approx([float(lr) for lr in logged], rel=1e-12)
    assert [row["step"] for row in rows] == [str(step) for step in range(1, 31)]
    assert [row["phase"] for row in rows] == ["warmup"] * 8 + ["main"] * 22
    assert line(text, "warmup") == ["warmup", "steps", "1", "to", "8"]
    assert line(text, "lr", "all")[-3:-1] == ["0.0003", "9"]
    assert line(text, "momentum", "all")[-1] == "0.95"
    assert line(text, "weight_decay", "blocks.0.0.weight")  # that of the others is 0 and does not move


@pytest.mark.parametrize(
    ("words", "total", "said"),
    [
        (["trainer.max_epochs=3", "trainer.accumulate=4", "trainer.max_steps=null"], 87, "the last of 2"),
        (["trainer.max_epochs=3", "trainer.batch_size=449", "trainer.max_steps=null"], 6, "of 449)"),
        (["trainer.max_epochs=3", "trainer.max_steps=50"], 50, "(trainer.max_steps)"),
        (["trainer.max_epochs=1", "trainer.max_steps=50"], 29, "trainer.max_epochs=1"),
        (["trainer.max_steps=1"], 1, "1 step "),
    ],
)
def test_the_total(here, words, total, said, capsys):
    text = show(capsys, *words)
    assert line(text, "total")[1] == f"{total:,}"
    assert said in text


def test_groups_and_phases(here, capsys):
    text = show(
        capsys, "optimizer.layer_lr_decay=0.5", "optimizer.groups=[{match: 'blocks.0.1.bias', scheduler: constant}]",
        "scheduler=wsd", "scheduler.warmup_steps=10", "trainer.max_steps=100", "scheduler.also={beta2: linear}",
    )  # fmt: skip
    assert line(text, "warmup") == ["warmup", "steps", "1", "to", "10"]
    assert line(text, "main") == ["main", "steps", "11", "to", "82"]
    assert line(text, "cooldown") == ["cooldown", "steps", "83", "to", "100"]
    own = next(text_line for text_line in text.splitlines() if "blocks.0.1.bias" in text_line)
    assert own.split()[-1] == own.split()[-3]  # it stays at its highest rate
    assert "constant" in text
    assert line(text, "beta2", "all")


def test_many_groups_are_a_handful(here, capsys):
    words = ["experiment=gpt_stdlib", "optimizer.layer_lr_decay=0.8", "model.layers=9", "model.preset=null",
             "model.heads=2", "model.width=32", "trainer.max_steps=60", "--csv", "s.csv"]  # fmt: skip
    text = show(capsys, *words)
    assert "and 5 more, not drawn" in text
    assert line(text, "a", "lr")[2] == "embedding.weight"
    with (here / "s.csv").open(newline="") as file:
        assert len(next(csv.reader(file))) == 2 + 11


def test_long_trainings_are_quick_and_exact(here, capsys):
    began = time.perf_counter()
    text = show(capsys, "trainer.max_steps=10000000", "scheduler=wsd", "scheduler.warmup_steps=777")
    assert time.perf_counter() - began < 10
    assert line(text, "warmup")[-1] == "777"
    assert line(text, "cooldown")[2] == "8,000,156"
    assert line(text, "lr", "all")[-3:-1] == ["0.001", "778"]
    assert "10,000,000 steps" in text


@pytest.mark.parametrize("peak", [1_234_567, 4_999, 9_990_005])
def test_a_peak_between_the_steps_looked_at_is_found(here, capsys, peak):
    also = f"scheduler.also={{weight_decay: {{name: onecycle, pct_start: {peak / 10**7}}}}}"
    text = show(capsys, "trainer.max_steps=10000000", "optimizer.weight_decay=0.5", also)
    assert line(text, "weight_decay", "blocks.0.0.weight")[-3:-1] == ["0.5", f"{peak:,}"]


def test_spans_are_exact():
    spans = find_spans(lambda step: "warmup" if step <= 3 else "cooldown" if step > 5_432_109 else "main", 10**7)
    assert [(s.phase, s.first, s.last) for s in spans] == [
        ("warmup", 1, 3), ("main", 4, 5_432_109), ("cooldown", 5_432_110, 10**7)
    ]  # fmt: skip
    assert spread(1, 5, 1_000) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("forgetful")
def test_plugins_and_driven_schedules(here, capsys):
    (here / "my_parts.py").write_text(PLUGIN)
    text = show(capsys, "plugins=[my_parts]", "model=mymodel", "scheduler=my_driven", "trainer.max_steps=20")
    assert "follows the training loss" in text
    assert "the course without a change" in text


def test_an_optimizer_without_a_rate(here, capsys):
    text = show(capsys, "optimizer=adafactor", "optimizer.lr=null", "scheduler=constant", "trainer.max_steps=20")
    assert "chooses its own learning rate" in text
    assert (here / "schedule.png").stat().st_size > 1_000


def test_a_weight_decay_that_is_0_is_refused(here, capsys):
    words = ["optimizer.weight_decay=0", "scheduler.also={weight_decay: cosine}", "trainer.max_steps=20"]
    assert main.main(["schedule", *words]) == 2
    assert "scheduler.also.weight_decay=0: is 0, which a schedule multiplies in vain." in capsys.readouterr().err


def test_a_resumed_run(here, capsys):
    ava.train([*SMALL, "scheduler=wsd", "trainer.max_steps=3", "trainer.eval_every=0", "run_dir=r"])
    before = sorted((here / "r").rglob("*"))
    capsys.readouterr()
    text = show(capsys, "resume=r", "trainer.max_steps=4000", "--output", "x.png")
    assert line(text, "total")[1] == "4,000"
    assert line(text, "cooldown")[2] == "3,201"
    assert "stands at step 3;" in text
    assert sorted((here / "r").rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=lino"],
        ["seed=-1"],
        ["scheduler.warmup_steps=3000"],
        ["scheduler.also={weight_decai: cosine}"],
        ["data=text", "task=language_model", "model=gpt", "path=nowhere"],
        ["resume=nowhere"],
        ["optimizer.groups=[{match: nothing, lr: 1}]"],
        ["trainer.max_epochs=1", "trainer.max_steps=null", "scheduler.warmup_steps=500"],
        ["--config-dir", "nowhere"],
    ],
)
def test_bad_input_is_refused_in_the_words_of_the_training(here, words, capsys):
    assert train.main(words) == 2
    expected = capsys.readouterr().err.removeprefix("ava-train: ")
    assert main.main(["schedule", *words]) == 2
    said = capsys.readouterr()
    assert said.err.removeprefix("ava: ") == expected
    assert said.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--output", "no/where.png"], "there is no directory no."),
        (["--output", "x.gif"], ".png, .svg, .pdf"),
        (["--output", "."], "--output=.: "),
        (["--output", "d.png"], "is a directory"),
        (["--csv", "no/where.csv"], "--csv=no/where.csv: "),
        (["--output", "f/x.png"], "is a file"),
        (["--ouput=x.png"], "Did you mean `--output`?"),
        (["--csv"], "expected one argument"),
        (["-m"], "there is no option -m"),
    ],
)
def test_files_and_options_that_cannot_be(here, words, fragment, capsys):
    (here / "d.png").mkdir()
    (here / "f").write_text("")
    assert main.main(["schedule", *words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("ava: ")
    assert fragment in said.err
    assert said.out == ""


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["optimizer=lion", "--help"]])
def test_help(words, capsys):
    text = show(capsys, *words)
    assert "--output FILE" in text
    assert "--csv FILE" in text


@pytest.mark.parametrize("word", ["--help", "optimizer=lino"])
def test_nothing_heavy_is_imported(word, process):
    code = f"from ava.cli import main; main.main(['schedule', '{word}'])"
    done = process("-c", IMPORTS.format(code=code, watched=[*HEAVY, "matplotlib", "plotext"]))
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("chosen", ["optimizer=lamb", "model=resnet", "scheduler=triangular"])
def test_the_groups_are_those_of_a_training(chosen):
    config = compose([chosen, "trainer.max_steps=9", "optimizer.layer_lr_decay=0.9"])
    scheduler, loader = parts.build_scheduler(config)
    with join("cpu", 10) as world:
        run, _ = parts.build_run(config, world)
        assert scheduler.total_steps == run.scheduler.total_steps
        assert loader.steps_per_epoch == run.loader.steps_per_epoch
        for step in range(10):
            assert scheduler.at(step) == run.scheduler.at(step)
        real = [group["param_names"] for group in run.optimizer.param_groups]
    assert [group["param_names"] for group in scheduler.optimizer.param_groups] == real
    assert all(p.device.type == "meta" for group in scheduler.optimizer.param_groups for p in group["params"])

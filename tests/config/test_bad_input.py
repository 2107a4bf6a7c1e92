"""Bad input ends with code 2 and one message that names the key, the value, what is allowed and the nearest name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ava.cli import train

TRAINS = "trainer.max_steps=3"


@dataclass(frozen=True)
class Row:
    """A command line that cannot be.

    Attributes:
        name: what it is about.
        arguments: what follows `ava-train`.
        fragments: what the message must contain.
        setup: makes files in the working directory first.
    """

    name: str
    arguments: str
    fragments: tuple[str, ...]
    setup: Callable[[], object] = lambda: None


def write(path: str, text: str | bytes) -> Callable[[], object]:
    def setup() -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    return setup


def folder(path: str, mode: int = 0o755) -> Callable[[], object]:
    def setup() -> None:
        Path(path).mkdir(parents=True)
        Path(path).chmod(mode)

    return setup


POSITIVE, WHOLE = "a number > 0", "a whole number"
ALIASES = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
CHAIN = "# @package _global_\n" + "".join(f"a{i}: '{f'${{a{i + 1}}}' * 10}'\n" for i in range(30)) + "a30: x\n"
FACTORY = "# @package _global_\noptimizer:\n  _target_: os.system\n  command: touch owned\n"
LOGGING = "# @package _global_\nhydra:\n  job_logging:\n    handlers:\n      h: {class: os.system}\n"
SAVED = "plugins: [evil.code]\n"

ROWS = [
    # unknown keys, at each level
    Row("unknown root key", "sed=1", ("sed=1", "no such key", "`seed`")),
    Row("an option at the root", "lr=0.1", ("lr=0.1", "no such key", "`optimizer.lr`")),
    Row("an option in the wrong section", "trainer.lr=0.1", ("trainer.lr=0.1", "`trainer`", "`optimizer.lr`")),
    Row("a trainer key at the root", "max_steps=3", ("max_steps=3", "`trainer.max_steps`")),
    Row("a misspelled option", "optimizer.wieght_decay=0", ("optimizer.wieght_decay=0", "`optimizer.weight_decay`")),
    Row("another optimizer's option", "optimizer.momentum=0.9", ("optimizer.momentum", "`optimizer=sgd`")),
    Row("unknown trainer key", "trainer.batchsize=3", ("trainer.batchsize=3", "`trainer.batch_size`")),
    Row("unknown scheduler option", "scheduler.warmup_step=3", ("scheduler.warmup_step=3", "`scheduler.warmup_steps`")),
    Row("unknown model option", "model.widht=3", ("model.widht=3", "`model.width`")),
    Row("unknown data option", "data.agument=true", ("data.agument=true", "`data.augment`")),
    Row("unknown task option", "task.smoothing=0.1", ("task.smoothing=0.1", "`task.label_smoothing`")),
    Row("unknown checkpoint key", "checkpoint.evry=3", ("checkpoint.evry=3", "`checkpoint.every`")),
    Row("unknown precision key", "precision.nam=x", ("precision.nam=x", "`precision.name`")),
    Row("a key added with +", "+new.key=1", ("new.key=1", "no such key", "optimizer")),
    Row("a key added with ++", "++trainer.max_stepz=1", ("trainer.max_stepz=1", "`trainer.max_steps`")),
    Row("a key below a value", "optimizer.lr.x=1", ("optimizer.lr", POSITIVE)),
    Row("a deleted key that is none", "~trainer.nothing", ("~trainer.nothing", "no such key")),
    # unknown names
    Row("unknown optimizer", "optimizer=lino", ("optimizer=lino", "adamw, ", "lion, ", "`lion`")),
    Row("unknown scheduler", "scheduler=cosin", ("scheduler=cosin", "onecycle", "`cosine`")),
    Row("unknown task", "task=digit", ("task=digit", "stdlib_lm", "`digits`")),
    Row("unknown model", "model=convnt", ("model=convnt", "resnet", "`convnet`")),
    Row("unknown data", "data=txt", ("data=txt", "tokens", "`text`")),
    Row("unknown precision", "precision=fp7", ("precision=fp7", "auto, bf16, fp16, fp32, fp8, tf32")),
    Row("unknown precision by key", "precision.name=fp7", ("precision.name=fp7", "fp32, tf32, bf16, fp16, fp8, auto")),
    Row("unknown name by key", "optimizer.name=lino", ("optimizer.name=lino", "adamw, ", "lion, ", "`lion`")),
    Row("unknown group", "optimizr=lion", ("optimizr=lion", "no such key", "`optimizer`")),
    Row("unknown group with a slash", "optim/lion=x", ("optim/lion=x", "no such group")),
    Row("unknown experiment", "experiment=nothing", ("experiment=nothing", "no such option")),
    Row("unknown logger", "logger=[tensorbord]", ("logger=tensorbord", "one of: tensorboard", "`tensorboard`")),
    Row("two clips", "clip=norm trainer.clip=value", ("clip=norm", "trainer.clip=value", "Give one")),
    Row("clip_norm as an option", "trainer.clip_options={clip_norm:2}", ("Say `trainer.clip_norm=...`",)),
    Row("unknown option of a clip", "clip=zscore trainer.clip_options={alfa:0.9}", ("Did you mean `alpha`",)),
    Row("unknown clip", "trainer.clip=nrom", ("trainer.clip=nrom", "none, norm", "`norm`")),
    Row("unknown device", "trainer.device=gpu", ("trainer.device=gpu", "auto, cpu, cuda")),
    Row("unknown surgery", "surgery=pcgrat", ("surgery=pcgrat", "Did you mean `pcgrad`?")),
    Row(
        "two schedules",
        "optimizer=agmohd optimizer.lr_scheduler=step",
        ("optimizer.lr_scheduler=step", "scheduler=constant"),
    ),
    Row("unknown recovery", "recovery=laddr", ("recovery=laddr", "`recovery` can be: ladder, off, skip")),
    Row("unknown health policy", "health.on_nonfinite=ignore", ("health.on_nonfinite=ignore", "skip, raise, rollback")),
    Row("unknown backend", "distributed.backend=mpi", ("distributed.backend=mpi", "auto, gloo, nccl")),
    Row("a group put elsewhere", "optimizer@model=lion", ("optimizer@model=lion", "another place")),
    # wrong types
    Row("a text for a number", "optimizer.lr=fast", ("optimizer.lr=fast", POSITIVE, "not a text")),
    Row("a quoted number", "seed='12'", ("seed=12", WHOLE, "not a text")),
    Row("true for a number", "seed=true", ("seed=true", WHOLE, "not true or false")),
    Row("a number for true", "trainer.compile=1", ("trainer.compile=1", "true or false")),
    Row("a fraction for a whole number", "trainer.batch_size=2.5", ("trainer.batch_size=2.5", f"{WHOLE} > 0")),
    Row("null where none may be", "optimizer.lr=null", ("optimizer.lr=null", POSITIVE, "not null")),
    Row("a list for a number", "trainer.max_steps=[3]", ("trainer.max_steps=[3]", WHOLE, "not a list")),
    Row("one beta", "optimizer.betas=[0.9]", ("optimizer.betas=[0.9]", "a list of 2", ">= 0 and < 1")),
    Row("three betas", "optimizer.betas=[0.9,0.9,0.9]", ("optimizer.betas=", "a list of 2")),
    Row("a beta of one", "optimizer.betas=[0.9,1.0]", ("optimizer.betas=[0.9, 1.0]", ">= 0 and < 1")),
    Row("a number for a section", "trainer=5", ("trainer=5", "a section", "`trainer.<key>=...`")),
    Row("a list for a section", "trainer=[1]", ("trainer=[1]", "a section")),
    Row("a text for a list", "logger=tensorboard", ("logger=tensorboard", "a list", "[tensorboard]")),
    Row("a text for plugins", "plugins=mine", ("plugins=mine", "a list", "plugins=[mine]")),
    Row("a number for a path", "run_dir=3", ("run_dir=3", "a text", "not a whole number")),
    Row("an empty path", "run_dir=''", ("run_dir=", "not empty")),
    # out of range
    Row("NaN", "optimizer.lr=nan", ("optimizer.lr=nan", POSITIVE, "not finite")),
    Row("infinity", "optimizer.lr=inf", ("optimizer.lr=inf", POSITIVE, "not finite")),
    Row("a number beyond all", "optimizer.weight_decay=1e999", ("optimizer.weight_decay=inf", "not finite")),
    Row("a negative rate", "optimizer.lr=-0.1", ("optimizer.lr=-0.1", POSITIVE)),
    Row("a rate of zero", "optimizer.lr=0", ("optimizer.lr=0", POSITIVE)),
    Row("negative steps", "trainer.max_steps=-5", ("trainer.max_steps=-5", f"{WHOLE} > 0 or null")),
    Row("no steps", "trainer.max_steps=0", ("trainer.max_steps=0", f"{WHOLE} > 0 or null")),
    Row("an empty batch", "trainer.batch_size=0", ("trainer.batch_size=0", f"{WHOLE} > 0")),
    Row("a negative seed", "seed=-1", ("seed=-1", f"{WHOLE} >= 0")),
    Row(
        "a seed beyond all generators", "seed=9223372036854775808", ("seed=9223372036854775808", f"{WHOLE} >= 0 and <")
    ),
    Row("a size not offered", "model=resnet model.layers=19", ("model.layers=19: must be one of: 10, 18, 34.",)),
    Row("a model of no width", "model.width=0", ("model.width=0", f"{WHOLE} > 0")),
    Row("negative warm-up", "scheduler.warmup_steps=-1", ("scheduler.warmup_steps=-1", f"{WHOLE} >= 0")),
    Row("a share above one", "task.label_smoothing=1.5", ("task.label_smoothing=1.5", ">= 0 and <= 1")),
    Row("an average of nothing", "trainer.ema_decay=1.0", ("trainer.ema_decay=1.0", "> 0 and < 1")),
    Row("an average of the last", "trainer.ema_decay=0", ("trainer.ema_decay=0", "> 0 and < 1")),
    Row("a threshold of zero", "trainer.clip_norm=0", ("trainer.clip_norm=0", POSITIVE)),
    Row("no checkpoint kept", "checkpoint.keep_last=0", ("checkpoint.keep_last=0", f"{WHOLE} > 0")),
    Row("no time to wait", "distributed.timeout_s=0", ("distributed.timeout_s=0", f"{WHOLE} > 0")),
    Row("no jobs", "sweep.jobs=0", ("sweep.jobs=0", f"{WHOLE} > 0")),
    # combinations
    Row("a model of another kind", "task=stdlib_lm model=resnet", ("model=resnet", "images", "tokens", "gpt")),
    Row("data of another kind", "task=digits data=stdlib", ("data=stdlib", "tokens", "task=digits", "images")),
    Row("no end", "trainer.max_steps=null", ("trainer.max_steps=null", "trainer.max_epochs", "when to stop")),
    Row("more pieces than samples", "trainer.batch_size=4 trainer.accumulate=5", ("trainer.accumulate=5", "=4")),
    Row(
        "endless warm-up",
        "trainer.max_steps=10 scheduler.warmup_steps=10",
        ("scheduler.warmup_steps=10", "less than trainer.max_steps=10"),
    ),
    Row(
        "patience without evaluations",
        "trainer.early_stop_patience=2 trainer.eval_every=0",
        ("trainer.early_stop_patience=2", "trainer.eval_every=0"),
    ),
    Row("a mode of nothing", "checkpoint.mode=min", ("checkpoint.mode=min", "checkpoint.monitor")),
    Row(
        "a monitor that is no evaluation",
        "checkpoint.monitor=accuracy checkpoint.mode=max",
        ("checkpoint.monitor=accuracy", "eval/", "`eval/accuracy`"),
    ),
    Row("a monitor without mode", "checkpoint.monitor=eval/loss", ("checkpoint.monitor=eval/loss", "min or max")),
    Row("nccl on a CPU", "distributed.backend=nccl trainer.device=cpu", ("distributed.backend=nccl", "cpu", "gloo")),
    Row("a path for data without files", "path=.", ("path=.", "data=digits", "text", "`data=...`")),
    Row("two paths", "task=language_model path=a data.path=b", ("path=a", "data.path=b")),
    Row("null for a group", "optimizer=null", ("optimizer=null", "one option: ", "adamw, ")),
    Row("two optimizers", "optimizer=[lion,sgd]", ("optimizer=[lion", "one option: ", "adamw, ")),
    Row("a number as long as a line", "optimizer.lr=-" + "1" * 400, ("optimizer.lr=-111", POSITIVE)),
    Row("an odd deletion", "~optimizer=[]", ("optimizer", "deletion")),
    Row("no optimizer", "~optimizer", ("`optimizer` has to be chosen",)),
    # places
    Row("no path", "task=language_model", ("data.path=null", "data=text", "`path=FILE_OR_FOLDER`")),
    Row(
        "a missing path", "task=language_model path=bok", ("data.path=bok", "no such file", "book"), write("book", "x")
    ),
    Row("an empty file", "task=language_model path=empty", ("data.path=empty", "is empty"), write("empty", "")),
    Row("an empty folder", "task=classification path=none", ("data.path=none", "is empty"), folder("none")),
    Row("a file as run_dir", f"{TRAINS} run_dir=here", ("run_dir=here", "is a file"), write("here", "x")),
    Row("a run_dir below a file", "run_dir=here/run", ("run_dir=here/run", "is a file"), write("here", "x")),
    Row(
        "a run_dir that is used",
        f"{TRAINS} run_dir=old",
        ("run_dir=old", "a run already", "resume=old"),
        write("old/config.yaml", "seed: 0\n"),
    ),
    Row("a run_dir with too long a name", "run_dir=" + "x" * 300, ("run_dir=xxx", "name too long")),
    Row("a resume path with too long a name", "resume=" + "x" * 300, ("resume=xxx", "name too long")),
    Row("a resume path that is none", "resume=nowhere", ("resume=nowhere", "does not exist")),
    Row("a resume path without a run", "resume=empty", ("resume=empty", "no complete checkpoint"), folder("empty")),
    Row("a resume path that is a file", "resume=file", ("resume=file", "is a file"), write("file", "x")),
    Row(
        "a checkpoint without its run",
        "resume=step-3",
        ("resume=step-3", "config.yaml"),
        write("step-3/manifest.json", "{}"),
    ),
    Row(
        "a saved run that wants code",
        "resume=old",
        ("evil.code", "cannot import", "plugins=[evil.code]"),
        lambda: [write("old/config.yaml", SAVED)(), write("old/checkpoints/step-1/manifest.json", "{}")()],
    ),
    # plugins
    Row("a missing plugin", "plugins=[nobody.knows]", ("plugins=nobody.knows", "No module named 'nobody'")),
    Row(
        "a broken plugin",
        "plugins=[broken_plugin]",
        ("plugins=broken_plugin", "ZeroDivisionError"),
        write("broken_plugin.py", "1 / 0\n"),
    ),
    Row(
        "a plugin that takes a name",
        "plugins=[greedy_plugin]",
        ("plugins=greedy_plugin", "'convnet'", "another name"),
        write(
            "greedy_plugin.py",
            "from ava.registry import model\n\n\n@model\ndef convnet(spec, /):\n    '''Mine.'''\n",
        ),
    ),
    Row(
        "a plugin named in a file",
        "--config-dir mine experiment=e",
        ("plugins=['os']", "only the command line"),
        write("mine/experiment/e.yaml", "# @package _global_\nplugins: [os]\n"),
    ),
    # the grammar, and Hydra's own settings
    Row("no override", "lion", ("`lion`", "no override", "`lion=...`")),
    Row("an unknown option", "--optimizer lion", ("--optimizer", "--help")),
    Row("a misspelled option of the command", "--multi", ("--multi", "`--multirun`")),
    Row("a value without a key", "=3", ("`=3`", "no key", "`key=value`")),
    Row("letters that need quotes", "run_dir=für", ("run_dir=für", "needs quotes", "'run_dir=\"für\"'")),
    Row("a mapping for a list", "optimizer.betas={}", ("optimizer.betas={}", "must be a list")),
    Row("null for plugins", "plugins=null", ("plugins=null", "a list", "plugins=[my_package.my_module]")),
    Row("a name over other options", "optimizer.name=lion", ("optimizer.name=lion", "`optimizer=lion`")),
    Row("an open bracket", "logger=[a", ("logger=[a", "cannot be read")),
    Row("too many brackets", "seed=" + "[" * 200, ("seed=[[[", "brackets")),
    Row("several values", "optimizer=adamw,lion", ("optimizer=adamw,lion", "-m")),
    Row("a range", "seed=range(3)", ("seed=range(3)", "-m")),
    Row("Hydra's directory", "hydra.run.dir=x", ("hydra.run.dir=x", "`run_dir=...`")),
    Row("Hydra's sweeps", "hydra.sweep.dir=x", ("hydra.sweep.dir=x", "`sweep.dir=...`")),
    Row("Hydra's launcher", "hydra/launcher=joblib", ("hydra/launcher=joblib", "`sweep.jobs=...`")),
    Row("Hydra's logging", "hydra/job_logging=none", ("hydra/job_logging=none", "not used")),
    Row("an added Hydra key", "+hydra.job.env_set={A: b}".replace(" ", ""), ("hydra.job.env_set", "not used")),
    Row("--resolve alone", "--resolve", ("--resolve", "--cfg job")),
    Row("--cfg of something else", "--cfg hydra", ("--cfg", "hydra", "job")),
    Row("a sweep of a sweep", "-m sweep.jobs=1,2", ("sweep.jobs=1,2", "same for all runs")),
    Row("a sweep into one directory", "-m run_dir=x seed=1,2", ("run_dir=x", "sweep.dir")),
    Row("a sweep that continues one run", "-m resume=x seed=1,2", ("resume=x", "auto or null")),
    Row("a sweep with one bad value", "-m optimizer=adamw,lino", ("optimizer=lino", "`lion`")),
    Row("a sweep without end", "-m seed=range(1000000000)", ("1000 runs", "fewer")),
    Row("an interval", "-m seed=interval(0,1)", ("seed=interval(0", "range()")),
    Row("a glob of nothing", "-m optimizer=glob(zzz*)", ("optimizer=glob(zzz*)", "nothing")),
    Row("a sweep directory in use", "-m seed=1,2 sweep.dir=s", ("sweep.dir=s", "not empty"), write("s/x", "x")),
    # configuration files
    Row("no such directory of files", "--config-dir nope", ("--config-dir", "nope", "a directory")),
    Row(
        "a file that hides ours",
        "--config-dir mine",
        ("optimizer/lion.yaml", "another name"),
        write("mine/optimizer/lion.yaml", "name: lion\n"),
    ),
    Row(
        "no YAML",
        "--config-dir mine model=m",
        ("m.yaml", "not valid YAML"),
        write("mine/model/m.yaml", "a: [1\nb: }\n"),
    ),
    Row("no keys", "--config-dir mine model=m", ("m.yaml", "keys and values"), write("mine/model/m.yaml", "- 1\n")),
    Row("no text", "--config-dir mine model=m", ("m.yaml", "UTF-8"), write("mine/model/m.yaml", b"a: \xff\xfe\n")),
    Row("a key twice", "--config-dir mine model=m", ("duplicate key",), write("mine/model/m.yaml", "a: 1\na: 2\n")),
    Row(
        "no name", "--config-dir mine model=m", ("model.name=null", "resnet"), write("mine/model/m.yaml", "width: 3\n")
    ),
    Row(
        "an unknown default",
        "--config-dir mine experiment=e",
        ("optimizer=lino", "adamw, ", "lion, ", "`lion`"),
        write("mine/experiment/e.yaml", "# @package _global_\ndefaults:\n  - override /optimizer: lino\n"),
    ),
    Row(
        "a file too large",
        "--config-dir mine model=m",
        ("m.yaml", "1,048,576 bytes"),
        write("mine/model/m.yaml", "# " + "x" * (1 << 20)),
    ),
    Row("a YAML bomb", "--config-dir mine model=m", ("m.yaml", "aliases"), write("mine/model/m.yaml", ALIASES)),
    Row(
        "an alias of itself",
        "--config-dir mine model=m",
        ("m.yaml", "*a"),
        write("mine/model/m.yaml", "a: &a [*a]\n"),
    ),
    Row(
        "deep nesting",
        "--config-dir mine model=m",
        ("m.yaml", "levels deep"),
        write("mine/model/m.yaml", "a: " + "[" * 5000 + "]" * 5000),
    ),
    Row(
        "an interpolation bomb",
        "--config-dir mine experiment=e",
        ("characters", "interpolations"),
        write("mine/experiment/e.yaml", CHAIN),
    ),
    Row("an interpolation of itself", "run_dir=${run_dir}", ("run_dir=${run_dir}", "back to itself")),
    Row("an interpolation of nothing", "run_dir=${nothing}", ("run_dir=${nothing}", "'nothing' not found")),
    Row("an unknown resolver", "run_dir=${oc.create:x}", ("run_dir", "oc.create", "oc.env")),
    Row("a missing variable", "run_dir=${oc.env:NOT_SET_AT_ALL}", ("run_dir=${oc.env:NOT_SET_AT_ALL}", "not found")),
    # nothing is built by its path
    Row("a target", "optimizer._target_=os.system", ("optimizer._target_=os.system", "parts are chosen by name")),
    Row("an added target", "+task._target_=os.system", ("task._target_=os.system", "parts are chosen by name")),
    Row("a target at the root", "+_target_=os.system", ("_target_=os.system", "parts are chosen by name")),
    Row(
        "a target in a file",
        "--config-dir mine experiment=e",
        ("optimizer._target_=os.system", "parts are chosen by name"),
        write("mine/experiment/e.yaml", FACTORY),
    ),
    Row(
        "a logging class in a file",
        "--config-dir mine experiment=e",
        ("e.yaml", "sets hydra", "not used"),
        write("mine/experiment/e.yaml", LOGGING),
    ),
]


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ROWS])
def test_is_refused_with_one_clear_message(row, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AVA_TRACEBACK", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    row.setup()
    before = sorted(path for path in tmp_path.rglob("*") if path.name != "__pycache__")

    code = train.main(row.arguments.split())

    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("ava-train: ")
    assert "Traceback" not in captured.err
    for fragment in row.fragments:
        assert fragment in captured.err
    after = sorted(path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts)
    assert after == [path for path in before if "__pycache__" not in path.parts]


def test_the_table_is_as_long_as_promised():
    assert len({row.arguments for row in ROWS}) >= 60


def test_several_problems_are_told_in_one_message(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bad = ["seed=-1", "trainer.max_steps=x", "optimizer.lr=0", "model.width=0", "nothing=1", "sweep.jobs=0"]

    assert train.main(bad) == 2

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ava-train: 6 problems in the configuration:"
    assert len(lines) == 7
    assert lines[-1] == "  and 1 more."


def test_a_sweep_inside_torchrun_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")

    assert train.main(["-m", "seed=0,1"]) == 2
    assert "torchrun" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("key", ["run_dir", "path"])
def test_permissions_are_looked_at(key, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder("locked", 0o000)()
    arguments = ["run_dir=locked/run"] if key == "run_dir" else ["task=language_model", "path=locked"]

    assert train.main(arguments) == 2
    assert "locked" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["optimizer=lino"], ["trainer.max_steps=0", "lr=3"], ["--nope"], ["resume=x"]])
def test_the_process_itself_ends_with_two(arguments, tmp_path):
    done = run_process(arguments, tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("ava-train: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_traceback_is_shown_on_request(tmp_path):
    done = run_process(["optimizer=lino"], tmp_path, AVA_TRACEBACK="1")

    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("ava-train: optimizer=lino")


def test_other_ranks_are_silent(tmp_path):
    done = run_process(["optimizer=lino"], tmp_path, RANK="1")

    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def run_process(arguments: list[str], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    root = Path(train.__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "ava.cli.train", *arguments],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(root), **env}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

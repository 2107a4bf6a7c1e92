"""`ava export`: what it writes gives the run's model back, and what cannot be ends with exit code 2."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import ava
from ava.checkpoint.checkpoint import load
from ava.cli.main import main
from ava.config.exporting import export_run
from ava.config.trained import load_trained
from ava.data.digits import digits
from ava.errors import InputError
from tests.cli.conftest import forgetful, here, process

__all__ = ["forgetful", "here", "process"]

VALID = digits(0).valid
LOAD = """
import sys, torch, ava
from ava.data.digits import digits
import numpy as np
model = ava.load_exported(sys.argv[1])
with torch.no_grad():
    torch.save(model(digits(0).valid.fetch(np.arange(32), 0)["inputs"]), "outputs.pt")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of two evaluations with averages; tests copy it rather than write into it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    ava.train([
        "task=digits", "model=mlp", "model.width=32", "trainer.max_steps=40", "trainer.eval_every=20", "logger=[]",
        "trainer.ema_decay=0.9", f"run_dir={folder}", "checkpoint.every=10", "checkpoint.keep_last=2",
    ])  # fmt: skip
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def inputs() -> torch.Tensor:
    return VALID.fetch(np.arange(32), 0)["inputs"]


@pytest.mark.parametrize("file_format", ["safetensors", "int8", "int4", "int2"])
@torch.no_grad()
def test_the_exported_model_is_the_trained_one(run, file_format, capfd):
    assert main(["export", str(run), "--format", file_format]) == 0
    folder = run / "export" / file_format
    model = load_trained(run).model
    outputs = ava.load_exported(folder)(inputs())
    error = float((outputs - model(inputs())).norm() / model(inputs()).norm())
    assert error <= {"safetensors": 0.0, "int8": 0.05, "int4": 0.3, "int2": 0.9}[file_format]
    about = json.loads((folder / "export.json").read_text())
    rows = {row[""]: row for row in about["rows"]}
    assert (rows["eval/accuracy"].get("before") or rows["eval/accuracy"].get("value")) > 0.2
    assert about["weights"] == "ema"
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "export.json", "model.safetensors"]
    backend = {"int8": "torch.ao", "int4": "torchao", "int2": "torch"}.get(file_format, "bit for bit")
    assert backend in capfd.readouterr().out
    assert not [path for path in (run / "export").iterdir() if path.name.startswith(".")]


@torch.no_grad()
def test_the_weights_are_those_that_were_evaluated(run):
    found = load_trained(run, "latest")
    sections = load(found.checkpoint)
    averages = sections["ema"]["averages"]
    assert all(torch.equal(averages[name], p) for name, p in found.model.named_parameters())
    assert any(not torch.equal(sections["model"][name], p) for name, p in found.model.named_parameters())
    assert found.metrics(found.model)["eval/loss"] == pytest.approx(_logged(run)["eval/loss"], rel=1e-5)


def _logged(run: Path) -> dict[str, float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(row for row in reversed(rows) if "eval/loss" in row)


@pytest.mark.parametrize("file_format", ["int8", "int4"])
@pytest.mark.slow
@torch.no_grad()
def test_another_process_gets_the_same_outputs(run, process, tmp_path, file_format):
    assert main(["export", str(run), "--format", file_format]) == 0
    done = process("-W", "error", "-c", LOAD, str(run / "export" / file_format))
    assert done.returncode == 0, done.stderr
    expected = ava.load_exported(run / "export" / file_format)(inputs())
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), expected)


@torch.no_grad()
def test_static_int8_is_calibrated_on_training_data(run):
    assert main(["export", str(run), "--format", "int8", "--type", "static", "--output", str(run / "x")]) == 0
    assert "int8 static" in json.loads((run / "x" / "export.json").read_text())["title"]
    model = load_trained(run).model
    error = (ava.load_exported(run / "x")(inputs()) - model(inputs())).norm() / model(inputs()).norm()
    assert float(error) < 0.1


def test_a_run_that_was_trained_for_it_stands_beside_its_control(run, tmp_path, capfd):
    """The configuration says what the training rounded to; the weights of a checkpoint are plain."""
    qat = Path(shutil.copytree(run, tmp_path / "qat"))
    config = yaml.safe_load((qat / "config.yaml").read_text())
    config["precision"]["qat"] = "int8"
    (qat / "config.yaml").write_text(yaml.safe_dump(config))
    assert main(["export", str(qat), "--format", "int8", "--control", str(run)]) == 0
    about = json.loads((qat / "export" / "int8" / "export.json").read_text())
    names = [row["model"] for row in about["models"]]
    assert len(names) == 5
    assert names[1] == "rounded to int8 as in training"
    losses = [row["eval/loss"] for row in about["models"]]
    assert losses[0] == losses[3]  # the same weights here
    assert losses[2] == losses[4]
    assert losses[1] == pytest.approx(losses[2], rel=1e-2)
    assert "control" in capfd.readouterr().out


CONTROLS = {
    "qat": (("precision", "qat", "int4"), "trained with precision.qat=int4"),
    "model": (("model", "width", 16), "another model configuration"),
    "data": (("data", "name", "fashion_mnist"), "another data configuration"),
    "itself": (None, "is the checkpoint that is exported"),
}


@pytest.mark.parametrize(("change", "said"), CONTROLS.values(), ids=CONTROLS.keys())
def test_a_control_of_another_experiment_is_refused(run, tmp_path, change, said):
    found = load_trained(run)
    control = found
    if change is not None:
        part, key, value = change
        old = getattr(found.config, part)
        is_option = hasattr(old, "options") and key != "name"
        changed = {"options": old.options | {key: value}} if is_option else {key: value}
        config = dataclasses.replace(found.config, **{part: dataclasses.replace(old, **changed)})
        control = dataclasses.replace(found, config=config, checkpoint=tmp_path / "other")
    with pytest.raises(InputError, match=f"^--control=.*{said}"):
        export_run(found, "int8", tmp_path / "export", control=control)
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("which", ["best", "latest", "step-30"])
def test_a_checkpoint_can_be_named(run, which):
    found = load_trained(run, which).checkpoint
    assert found.parent == run / "checkpoints"
    if which != "best":
        assert found.name == {"latest": "step-40"}.get(which, which)
    assert load_trained(run / "checkpoints" / "step-30").checkpoint.name == "step-30"


REFUSED = {
    "no run": (["absent", "--format", "int8"], "does not exist"),
    "no checkpoint": (["run/empty", "--format", "int8"], "no complete checkpoint"),
    "no such checkpoint": (["run", "--format", "int8", "--checkpoint", "step-7"], "step-40"),
    "format": (["run", "--format", "int9"], "Did you mean `--format int"),
    "no format": (["run"], "--format has to be given"),
    "type": (["run", "--format", "int8", "--type", "sttic"], "Did you mean `--type static`"),
    "static int4": (["run", "--format", "int4", "--type", "static"], "only int8"),
    "backend": (["run", "--format", "int4", "--backend", "torch.ao"], "does not run int4"),
    "two runs": (["run", "run", "--format", "int8"], "not 2"),
    "option": (["run", "--format", "int8", "--forse"], "Did you mean `--force`"),
    "there already": (["run", "--format", "int8", "--output", "run/checkpoints"], "--force"),
    "not an export": (["run", "--format", "int8", "--output", "run/checkpoints", "--force"], "is no export"),
    "control": (["run", "--format", "int8", "--control", "absent"], "--control=absent"),
    "control is the run": (["run", "--format", "int8", "--control", "run"], "is the checkpoint that is exported"),
    "2 bits by torchao": (["run", "--format", "int2", "--backend", "torchao"], "no kernel for 2 bits"),
    "idle backend": (["run", "--format", "safetensors", "--backend", "torchao"], "Leave --backend out"),
    "idle control": (["run", "--format", "safetensors", "--control", "run"], "Leave --control out"),
}


@pytest.mark.parametrize(("words", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_ends_with_exit_code_2(here, run, words, said, capfd):
    (run / "empty").mkdir()
    before = sorted(path for path in here.rglob("*"))
    assert main(["export", *words]) == 2
    assert said in capfd.readouterr().err
    assert sorted(path for path in here.rglob("*")) == before


def test_an_export_is_replaced_only_when_asked(run, capfd):
    words = ["export", str(run), "--format", "safetensors"]
    assert [main(words), main(words), main([*words, "--force"])] == [0, 2, 0]


def test_plugins_have_to_be_named(here, run, forgetful, capfd):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["plugins"] = ["my_parts"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (here / "my_parts.py").write_text("")
    assert main(["export", str(run), "--format", "safetensors"]) == 2
    assert "Add `plugins=[my_parts]`" in capfd.readouterr().err
    assert main(["export", str(run), "--format", "safetensors", "plugins=[my_parts]"]) == 0


def test_a_directory_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no exported model"):
        ava.load_exported(tmp_path)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "plain"
    assert main(["export", str(trained), "--format", "safetensors", "--output", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("about", ["{}", "[1]", '{"spec": 3}', '{"spec": {"type": "ImageSpec", "fields": {"a": 1}}}'])
def test_a_broken_export_is_refused(exported, tmp_path, about):
    folder = Path(shutil.copytree(exported, tmp_path / "broken"))
    (folder / "export.json").write_text(about)
    with pytest.raises(InputError, match=r"export\.json does not say .* Export the run again"):
        ava.load_exported(folder)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"device": "bogus"}, "device=bogus"), ({"device": "cuda:99"}, "no such GPU"), ({"backend": "bogus"}, "backend")],
    ids=["device", "absent device", "backend"],
)
def test_what_cannot_run_an_export_is_refused(exported, options, words):
    with pytest.raises(InputError, match=words):
        ava.load_exported(exported, **options)


PLUGIN = """
from torch import nn
from ava.registry import PositiveInt, model

@model(kind="images")
def of_a_plugin(spec, /, width: PositiveInt = 32):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


def test_an_export_of_a_plugins_model_is_loaded_with_the_plugin(here, run, exported, forgetful, monkeypatch):
    monkeypatch.syspath_prepend(here)
    (here / "exported_parts.py").write_text(PLUGIN)
    ava.train([
        "plugins=[exported_parts]", "task=digits", "model=of_a_plugin", "trainer.max_steps=2", "logger=[]",
        "run_dir=with_plugin",
    ])  # fmt: skip
    words = ["export", "with_plugin", "--format", "int8", "plugins=[exported_parts]"]
    assert main(words) == 0
    with pytest.raises(InputError, match=r"in Python `plugins=\['exported_parts'\]`"):
        ava.load_exported("with_plugin/export/int8")
    model = ava.load_exported("with_plugin/export/int8", plugins=["exported_parts"])
    assert model(inputs()).shape == (32, 10)


def test_only_the_weights_that_are_exported_have_to_be_whole(run, capfd):
    """Damage to what a run goes on from does not matter; damage to them names another checkpoint."""
    newest = run / "checkpoints" / "step-40"
    words = ["export", str(run), "--format", "safetensors", "--checkpoint", "latest"]
    for name in ("optimizer.safetensors", "model.safetensors"):
        (newest / name).write_bytes(b"damaged")
    assert main(words) == 0  # the averages are whole
    (newest / "ema.safetensors").write_bytes(b"damaged")
    assert main([*words, "--force"]) == 2
    said = capfd.readouterr().err
    assert "ema.safetensors is truncated" in said
    assert "--checkpoint; there are: step-" in said
    assert main([*words[:-1], "step-30", "--force"]) == 0

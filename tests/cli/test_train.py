from __future__ import annotations

import re
import tomllib

import pytest
from omegaconf import OmegaConf

import ava
from ava.cli import train
from ava.config.compose import compose
from ava.config.paths import conf_directory, group_options
from ava.config.saved import to_yaml
from tests.cli.conftest import ROOT

IMPORTS = "import sys\n{code}\nprint(sorted(n for n in sys.modules if n in {watched!r}), file=sys.stderr)"
HEAVY = ["torch", "sklearn", "tensorboard", "safetensors"]


@pytest.mark.parametrize(
    ("code", "watched"),
    [
        ("from ava.cli import train; train.main(['--help'])", [*HEAVY, "hydra", "omegaconf", "pydantic"]),
        ("from ava.cli import train; train.main(['--version'])", [*HEAVY, "hydra", "omegaconf", "pydantic"]),
        ("from ava.cli import train; train.main(['--cfg', 'job', 'experiment=gpt_stdlib'])", HEAVY),
        ("from ava.cli import train; train.main(['optimizer=lino'])", HEAVY),
        ("from ava.cli import train; train.main(['seed=-1', 'run_dir=x'])", HEAVY),
        ("from ava.cli import train; train.main(['-sc', 'query=bash'])", HEAVY),
        ("from ava.cli import main; main.main(['list'])", [*HEAVY, "hydra"]),
        ("import ava.config.resume, ava.config.places, ava.cli.sweep", HEAVY),
        ("import ava; ava.train", [*HEAVY, "hydra", "omegaconf", "pydantic"]),
    ],
)
def test_nothing_heavy_is_imported(code, watched, process):
    done = process("-c", IMPORTS.format(code=code, watched=watched), COMP_LINE="ava-train optimizer=")

    assert done.stderr.splitlines()[-1] == "[]"


def test_help_names_every_group_and_option(capsys):
    assert train.main(["--help"]) == 0

    text = capsys.readouterr().out
    for group, options in group_options([conf_directory()]).items():
        assert re.search(rf"^  {group} +{', '.join(options)}$", text, re.MULTILINE)


def test_every_key_in_the_help_exists(capsys):
    train.main(["-h"])

    text = capsys.readouterr().out
    keys = set(re.findall(r"\b(?:trainer|optimizer|scheduler|checkpoint|sweep)\.\w+", text))
    assert len(keys) > 10
    for key in keys:
        section, name = key.split(".")
        assert name in compose([]).as_dict()[section]


def test_help_shows_the_user_s_own_files(here, capsys):
    (here / "mine" / "experiment").mkdir(parents=True)
    (here / "mine" / "experiment" / "secret_plan.yaml").write_text("seed: 3\n")

    assert train.main(["--config-dir", "mine", "--help"]) == 0
    assert "secret_plan" in capsys.readouterr().out


def test_the_version_is_the_package_s(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert train.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ava {project['version']}\n"
    assert ava.__version__ == project["version"]


def test_cfg_shows_the_configuration_and_makes_nothing(here, capsys):
    assert train.main(["--cfg", "job", "optimizer=lion", "run_dir=${oc.env:HOME}/x"]) == 0

    shown = OmegaConf.create(capsys.readouterr().out)
    assert shown.optimizer.name == "lion"
    assert OmegaConf.to_container(shown, resolve=False)["run_dir"] == "${oc.env:HOME}/x"
    assert list(here.iterdir()) == []


def test_cfg_with_resolve_shows_what_is_used(capsys):
    assert train.main(["--cfg", "job", "--resolve", "seed=3"]) == 0
    assert capsys.readouterr().out == to_yaml(compose(["seed=3"]))


def test_a_short_training_from_the_command_and_from_python(here, capsys):
    arguments = ["trainer.max_steps=2", "trainer.eval_every=0", "model.width=4", "logger=[]"]

    assert train.main([*arguments, "run_dir=a"]) == 0
    summary = ava.train([*arguments, "run_dir=b"])

    assert summary["steps"] == 2
    assert sorted(path.name for path in here.iterdir()) == ["a", "b"]
    a, b = (OmegaConf.load(here / name / "config.yaml") for name in "ab")
    assert a.pop("run_dir") == "a"
    assert b.pop("run_dir") == "b"
    assert a == b


def test_an_unexpected_error_is_one_line(tmp_path, process):
    (tmp_path / "my_bug.py").write_text(
        "from ava.registry import model\n\n@model\ndef my_bug(spec, /):\n    'A bug.'\n    raise LookupError('lost')\n"
    )

    done = process("-m", "ava.cli.train", "plugins=[my_bug]", "model=my_bug", AVA_TRACEBACK="0")

    assert done.returncode == 1
    assert done.stderr.startswith("ava-train: failed unexpectedly: LookupError: lost")
    assert "AVA_TRACEBACK=1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()

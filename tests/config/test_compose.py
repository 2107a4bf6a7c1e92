from __future__ import annotations

import dataclasses

import pytest

from ava.config.compose import compose
from ava.config.paths import conf_directory, group_options
from ava.errors import InputError


def test_the_default_learns_digits():
    config = compose([])

    assert (config.task.name, config.model.name, config.data.name) == ("digits", "convnet", "digits")
    assert config.optimizer.name == "adamw"
    assert config.logger == ("tensorboard",)


def test_a_value_takes_its_annotated_type():
    config = compose(["optimizer.lr=1", "optimizer.betas=[0.5,0.9]", "trainer.ema_decay=0.99"])

    assert config.optimizer.options["lr"] == 1.0
    assert isinstance(config.optimizer.options["lr"], float)
    assert config.optimizer.options["betas"] == (0.5, 0.9)
    assert config.trainer.ema_decay == 0.99


def test_a_task_brings_its_data_and_model_and_an_override_wins():
    assert compose(["task=stdlib_lm"]).model.name == "gpt"
    assert compose(["task=digits", "model=mlp"]).model.name == "mlp"


@pytest.mark.parametrize("spelling", ["seed=3", "+seed=3", "++seed=3"])
def test_every_spelling_of_a_value(spelling):
    assert compose([spelling]).seed == 3


def test_no_experiment_can_be_asked_for():
    assert compose(["experiment=null"]) == compose([])


def test_the_last_of_two_values_wins():
    assert compose(["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize("task", group_options([conf_directory()])["task"])
@pytest.mark.parametrize("optimizer", ["adamw", "lion", "sgd"])
def test_every_task_composes(task, optimizer):
    assert compose([f"task={task}", f"optimizer={optimizer}"]).task.name == task


@pytest.mark.parametrize("experiment", group_options([conf_directory()]).get("experiment", []))
def test_every_experiment_composes(experiment):
    assert compose([f"experiment={experiment}"])


def test_an_experiment_of_the_user_comes_last(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /optimizer: lion\noptimizer:\n  lr: 0.5\nseed: 7\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)

    config = compose(["experiment=mine"], [tmp_path])

    assert (config.optimizer.name, config.optimizer.options["lr"], config.seed) == ("lion", 0.5, 7)
    assert compose(["experiment=mine", "optimizer.lr=0.1"], [tmp_path]).optimizer.options["lr"] == 0.1


def test_a_preset_of_the_user_names_the_part_it_sets(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "wide.yaml").write_text("name: convnet\nwidth: 64\n")

    config = compose(["model=wide"], [tmp_path])

    assert (config.model.name, config.model.options) == ("convnet", {"width": 64})


def test_the_shorthand_path_is_the_path_of_the_data():
    assert compose(["task=language_model", "path=books"]).data.options["path"] == "books"
    assert compose(["task=language_model", "data.path=books"]).data.options["path"] == "books"


def test_interpolations_are_put_in(monkeypatch):
    monkeypatch.setenv("AVA_TEST_SEED", "12")

    config = compose(["trainer.eval_every=${trainer.log_every}", "seed='${oc.decode:${oc.env:AVA_TEST_SEED}}'"])

    assert config.trainer.eval_every == config.trainer.log_every
    assert config.seed == 12


def test_a_configuration_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        compose([]).seed = 3


def test_composing_works_inside_a_program_that_uses_hydra(tmp_path):
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    with initialize_config_dir(version_base="1.3", config_dir=str(tmp_path)):
        compose(["seed=3"])
        assert GlobalHydra.instance().is_initialized()


def test_an_error_is_a_value_error_with_its_parts():
    with pytest.raises(InputError) as caught:
        compose(["optimizer.lrr=3"])

    assert (caught.value.key, caught.value.value) == ("optimizer.lrr", 3)
    assert caught.value.hint == "Did you mean `optimizer.lr`?"

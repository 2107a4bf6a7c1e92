"""What every optimizer can do, from the command line to the built optimizer."""

from __future__ import annotations

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from ava import registry
from ava.cli import train
from ava.config.compose import compose
from ava.config.loader import make_loader, options
from ava.config.resume import resumed
from ava.config.saved import load_saved, to_yaml
from ava.errors import InputError
from tests.training.helpers import small_run

LINE = [
    "optimizer=lion", "optimizer.cautious=true", "optimizer.state=factored",
    'optimizer.groups=[{match: "*.bias", weight_decay: 0}]',
]  # fmt: skip
NAMES = registry.optimizer.names()


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_has_every_shared_option_with_its_default(name):
    entry = registry.optimizer[name]
    part = compose([f"optimizer={name}"]).optimizer

    assert part.options == entry.defaults
    assert list(part.options)[: len(entry.own)] == entry.own
    assert {"state", "cautious", "sam_rho", "lookahead", "groups", "fused_backward"} <= entry.shared


def test_the_optimizer_is_built_with_them():
    run, _ = small_run(*LINE, "model=mlp", "optimizer.weight_decay=0.1")

    assert {group["state"] for group in run.optimizer.param_groups} == {"factored"}
    assert all(group["cautious"] for group in run.optimizer.param_groups)
    biases = {p for name, p in run.model.named_parameters() if name.endswith("bias")}
    for group in run.optimizer.param_groups:
        if biases & set(group["params"]):
            assert group["weight_decay"] == 0


def test_the_shown_configuration_has_own_options_first(capsys):
    assert train.main([*LINE, "--cfg", "job"]) == 0

    shown = yaml.safe_load(capsys.readouterr().out)["optimizer"]
    assert list(shown)[:4] == ["name", "lr", "betas", "weight_decay"]
    assert (shown["cautious"], shown["state"], shown["lookahead"]) == (True, "factored", None)
    assert shown["groups"] == [{"match": "*.bias", "weight_decay": 0}]


def test_a_saved_configuration_keeps_them_and_another_optimizer_can_be_named(tmp_path):
    config = compose(LINE)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_saved(tmp_path / "config.yaml") == config

    changed = resumed(tmp_path / "config.yaml", ["optimizer.grams=false", "optimizer.cautious=false"]).optimizer
    assert (changed.name, changed.options["cautious"], changed.options["state"]) == ("lion", False, "factored")

    other = resumed(tmp_path / "config.yaml", ["optimizer=ranger", "optimizer.sam_rho=0.1"]).optimizer
    assert other.options == registry.optimizer["ranger"].defaults | {"sam_rho": 0.1}


def test_a_configuration_from_before_them_is_read(tmp_path):
    tree = yaml.safe_load(to_yaml(compose(["optimizer=lion"])))
    tree["optimizer"] = {"name": "lion", "lr": 3e-4}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))

    assert load_saved(tmp_path / "config.yaml") == compose(["optimizer=lion"])


def test_the_shared_file_is_no_option(capsys):
    loader = make_loader()
    assert options(loader, "optimizer") == NAMES
    everything = OverridesParser.create(loader).parse_overrides(["optimizer=glob(*)"])[0]
    assert list(everything.sweep_string_iterator()) == NAMES
    assert train.main(["optimizer=_shared"]) == 2
    assert "_shared," not in capsys.readouterr().err
    assert train.main(["--help"]) == 0
    assert "_shared" not in capsys.readouterr().out


def test_completion_knows_them(monkeypatch, capsys):
    for line in ("ava-train optimizer=", "ava-train optimizer=lion optimizer."):
        monkeypatch.setenv("COMP_LINE", line)
        assert train.main(["-sc", "query=bash"]) == 0
    words = capsys.readouterr().out.split()
    assert {"optimizer.cautious=", "optimizer.sam_rho=", "optimizer.lr=", "optimizer=sophia"} <= set(words)
    assert not any("_shared" in word for word in words)


@pytest.mark.parametrize(
    ("line", "fragments"),
    [
        (["optimizer.cautous=true"], ["optimizer.cautous=true", "Did you mean `optimizer.cautious`?"]),
        (["optimizer.cautious=3"], ["optimizer.cautious=3", "true or false"]),
        (["optimizer.state=fp4"], ["optimizer.state=fp4", "dense, bf16, int8, factored"]),
        (["optimizer.lookahead=0"], ["optimizer.lookahead=0", "> 0"]),
        (["optimizer.groups=[bias]"], ["optimizer.groups", "a list, each a mapping"]),
        (["optimizer.cautious=true", "optimizer.grams=true"], ["optimizer.grams=true", "choose one"]),
        (["optimizer=sgd", "optimizer.atan2=true"], ["optimizer.atan2=true", "second moment"]),
        (["optimizer=sgd", "optimizer.momentum=0", "optimizer.cautious=true"], ["optimizer.cautious=true", "momentum"]),
        (["optimizer=sgd", "optimizer.nesterov=true", "optimizer.momentum=0"], ["optimizer.nesterov=true"]),
        (["optimizer.sam_adaptive=true"], ["optimizer.sam_adaptive=true", "optimizer.sam_rho"]),
        (["optimizer.fused_backward=true"], ["optimizer.fused_backward=true", "Add `trainer.clip=none`"]),
        (["optimizer.fused_backward=true", "trainer.clip=none", "trainer.accumulate=2"], ["trainer.accumulate=2"]),
        (["optimizer.fused_backward=true", "trainer.clip=none", "optimizer.sam_rho=0.1"], ["optimizer.sam_rho=0.1"]),
        (["optimizer=prodigy", "optimizer.fused_backward=true", "trainer.clip=none"], ["sums over all parameters"]),
        (["optimizer=lamb", "optimizer.fused_backward=true", "trainer.clip=none"], ["sums over all parameters"]),
        (["optimizer=sophia", "optimizer.fused_backward=true", "trainer.clip=none"], ["estimates"]),
        (["optimizer=schedule_free_sgd", "trainer.ema_decay=0.9"], ["trainer.ema_decay=0.9", "average of its own"]),
        (["optimizer.groups=[{match: nothing, lr: 0.1}]"], ["optimizer.groups[0]", "nothing"]),
        (["optimizer.groups=[{match: '*', lrr: 0.1}]"], ["optimizer.groups[0]", "Did you mean `lr`?"]),
        (["optimizer.stochastic_rounding=true"], ["optimizer.stochastic_rounding=true", "nothing to round"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_training(line, fragments, here, capsys):
    assert train.main([*line, "trainer.max_steps=1", "run_dir=run"]) == 2

    message = capsys.readouterr().err
    assert all(fragment in message for fragment in fragments), message
    assert not (here / "run").exists()


def test_several_ranks_and_fused_backward_are_refused():
    import torch

    from ava.config.parts import _build_alone
    from ava.distributed.world import World

    config = compose(["optimizer.fused_backward=true", "trainer.clip=none", "trainer.max_steps=1", "model=mlp"])
    with pytest.raises(InputError, match=r"optimizer\.fused_backward=true.*2 ranks"):
        _build_alone(config, World(0, 2, torch.device("cpu")))

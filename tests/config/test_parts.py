from __future__ import annotations

import pytest

from ava.config.compose import compose
from ava.config.parts import build_run
from ava.distributed.world import join
from ava.errors import InputError

pytestmark = pytest.mark.usefixtures("forgetful")

PLUGIN = """
import torch

from ava.data.source import Data, ImageSpec
from ava.registry import data, model, task


@data
def nothing(seed, /): ...


@data
def wrong_split(seed, /):
    split = torch.utils.data.TensorDataset(torch.zeros(4, 1))
    return Data(split, split, ImageSpec(1, 8, 8, 10), "a torch dataset")


@task
def half(data, /):
    return data


@model
def number(spec, /):
    return 3


@model
def fixed(spec, /):
    return torch.nn.Flatten()
"""


@pytest.mark.parametrize(
    ("chosen", "fragments"),
    [
        ("data=nothing", ["NoneType, lacks: train", "my_wrong", "ava.data.source"]),
        ("data=wrong_split", ["TensorDataset, lacks: fetch."]),
        ("task=half", ["Data, lacks: ", "losses, ", "ava.tasks.task"]),
        ("model=number", ["int, lacks: forward"]),
        ("model=convnet model.width=99999999", ["too large for this machine", "allocate", "smaller"]),
        ("model=mlp model.width=99999999999999999999999", ["too large for this machine"]),
        ("model=fixed", ["no parameter to train"]),
    ],
)
def test_what_a_plugin_makes_is_checked_before_it_is_used(here, chosen, fragments):
    (here / "my_wrong.py").write_text(PLUGIN)
    config = compose(["plugins=[my_wrong]", *chosen.split(), "trainer.max_steps=1", "trainer.device=cpu"])

    with pytest.raises(InputError) as caught, join("cpu", 10) as world:
        build_run(config, world)

    assert str(caught.value).startswith(f"{chosen.split()[0]}: ")
    for fragment in fragments:
        assert fragment in str(caught.value)

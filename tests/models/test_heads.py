"""Several heads on one trunk, for every image model; one head keeps the names that its parameters had."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ava.models._head import Heads
from ava.optimization.optimizers.parameter_groups import decay_groups
from ava.registry import model as models
from tests.models.test_models import DIGITS, SMALL, batch, build

IMAGES = [entry.name for entry in models if entry.tags["kind"] == "images"]
SIZES = {"digit": 10, "picture": 64}


def several(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return models[name].load()(replace(DIGITS, heads=SIZES), **SMALL.get(name, {}))


@pytest.mark.parametrize("name", IMAGES)
def test_each_output_has_its_size(name):
    outputs = several(name)(batch(name))
    assert {key: tuple(value.shape) for key, value in outputs.items()} == {"digit": (3, 10), "picture": (3, 64)}


@pytest.mark.parametrize("name", IMAGES)
def test_the_trunk_is_shared_and_heads_are_their_own(name):
    net = several(name)
    net(batch(name))["digit"].square().sum().backward()
    reached = {key for key, p in net.named_parameters() if p.grad is not None}
    own = {key for key in dict(net.named_parameters()) if key.startswith("head.outputs.picture.")}
    assert own == {"head.outputs.picture.weight", "head.outputs.picture.bias"}
    assert reached == dict(net.named_parameters()).keys() - own


@pytest.mark.parametrize("name", IMAGES)
def test_one_head_is_a_linear_layer_by_the_old_name(name):
    net = build(name)
    assert type(net.head) is torch.nn.Linear
    assert {"head.weight", "head.bias"} <= net.state_dict().keys()
    assert torch.equal(build(name).head.weight, net.head.weight)


@pytest.mark.parametrize("name", IMAGES)
def test_all_heads_are_ends_for_muon(name):
    groups = decay_groups(several(name), 0.0, spare_ends=True)
    ends = {key for group in groups if not group["use_muon"] for key, _ in group["params"]}
    assert {f"head.outputs.{head}.weight" for head in SIZES} <= ends


def test_heads_are_linear_in_the_features():
    heads, features = Heads(4, SIZES), torch.randn(2, 4)
    for key, output in heads(features).items():
        layer = heads.outputs[key]
        torch.testing.assert_close(output, features @ layer.weight.T + layer.bias)

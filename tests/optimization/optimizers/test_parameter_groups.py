"""Which parameters are decayed."""

from __future__ import annotations

from torch import nn

from ava.optimization import get_optimizer
from ava.optimization.optimizers.parameter_groups import decay_groups


def test_only_what_mixes_is_decayed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    model[2].weight.requires_grad_(False)
    decayed, spared = get_optimizer("adamw")(decay_groups(model, 0.1)).param_groups
    assert (decayed["weight_decay"], decayed["param_names"]) == (0.1, ["0.weight"])
    assert (spared["weight_decay"], spared["param_names"]) == (0.0, ["0.bias", "1.weight", "1.bias", "2.bias"])


def test_without_decay_one_group_does():
    (group,) = decay_groups(nn.Linear(2, 2), 0.0)
    assert [name for name, _ in group["params"]] == ["weight", "bias"]

"""Which parameters are decayed, and options by parameter name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ava.data.source import TokenSpec
from ava.errors import InputError
from ava.models.gpt import GPT
from ava.optimization import SchedulerFactory, get_optimizer
from ava.optimization.optimizers.parameter_groups import decay_groups, expand
from ava.optimization.optimizers.parameter_names import depths, end_parameters


def test_only_what_mixes_is_decayed():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Linear(2, 2))
    model[2].weight.requires_grad_(False)
    decayed, spared = get_optimizer("adamw")(decay_groups(model, 0.1)).param_groups
    assert (decayed["weight_decay"], decayed["param_names"]) == (0.1, ["0.weight"])
    assert (spared["weight_decay"], spared["param_names"]) == (0.0, ["0.bias", "1.weight", "1.bias", "2.bias"])


def test_without_decay_one_group_does():
    (group,) = decay_groups(nn.Linear(2, 2), 0.0)
    assert [name for name, _ in group["params"]] == ["weight", "bias"]


def test_muon_spares_embeddings_and_head():
    model = gpt(tied_embeddings=True)
    groups = decay_groups(model, 0.1, spare_ends=True)
    spared = [name for g in groups if not g["use_muon"] for name, _ in g["params"]]
    assert spared == ["embedding.weight"]  # the head's weight is the same tensor
    assert {g["weight_decay"] for g in groups} == {0.0, 0.1}
    assert end_parameters(gpt(tied_embeddings=False)) == {"embedding.weight", "head.weight"}
    assert sum(len(g["params"]) for g in groups) == len(list(model.parameters()))
    optimizer = get_optimizer("muon")(groups)
    assert [g["use_muon"] for g in optimizer.param_groups] == [g["use_muon"] for g in groups]


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), {"2.weight"}),
        (nn.ModuleDict({"fc": nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), "z": nn.Linear(2, 2)}), {"fc.1.weight"}),
        (nn.ModuleDict({"a": nn.Sequential(_Block()), "z": nn.Linear(2, 1)}), {"z.weight"}),
        (nn.Conv2d(1, 1, 1), set()),
    ],
    ids=["last-linear", "named", "not-in-a-block", "none"],
)  # fmt: skip
def test_which_linear_is_the_head(model, ends):
    assert end_parameters(model) == ends


def test_names_except_ends_from_muon():
    model = gpt(tied_embeddings=False)
    optimizer = get_optimizer("muon")(model.named_parameters())
    chosen = {name: g["use_muon"] for g in optimizer.param_groups for name in g["param_names"]}
    assert {name for name, use in chosen.items() if not use} == {"embedding.weight", "head.weight"}
    one_group = get_optimizer("muon")(model.named_parameters(), groups=[{"match": "*", "use_muon": True}])
    assert all(g["use_muon"] for g in one_group.param_groups)
    assert get_optimizer("muon")(model.parameters()).param_groups[0]["use_muon"]


def gpt(**options):
    return GPT(TokenSpec(vocab_size=8, context=4), preset=None, layers=2, heads=1, width=4, **options)


def by_name(optimizer, key):
    return {name: g[key] for g in optimizer.param_groups for name in g["param_names"]}


def test_entries_override_by_name_and_later_ones_win():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    entries = [
        {"match": ["*.bias", "0.*"], "lr": 1e-2, "weight_decay": 0.0},
        {"match": "0.weight", "lr": 1e-4},
    ]
    optimizer = get_optimizer("adamw")(model.named_parameters(), lr=1e-3, weight_decay=0.1, groups=entries)
    assert by_name(optimizer, "lr") == {"0.weight": 1e-4, "0.bias": 1e-2, "1.weight": 1e-3, "1.bias": 1e-2}
    assert by_name(optimizer, "weight_decay") == {"0.weight": 0.0, "0.bias": 0.0, "1.weight": 0.1, "1.bias": 0.0}
    assert [g["param_names"] for g in optimizer.param_groups] == [["0.weight"], ["0.bias", "1.bias"], ["1.weight"]]


def test_entries_win_over_the_trainers_decay():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    groups = decay_groups(model, 0.1)
    optimizer = get_optimizer("adamw")(groups, weight_decay=0.1, groups=[{"match": "1.*", "weight_decay": 0.5}])
    decays = {"0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.5, "1.bias": 0.5}
    assert by_name(optimizer, "weight_decay") == decays


def test_frozen_parameters_stay_and_are_left_out():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    entries = [{"match": "0.*", "freeze": True}, {"match": "0.bias", "freeze": False}]
    optimizer = get_optimizer("adamw")(model.named_parameters(), groups=entries)
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert optimizer.param_groups[0]["param_names"] == ["0.bias", "1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"groups": [{"match": "*.bais"}]}, ["groups[0].match", "*.bais", "0.bias"]),
        (
            {"groups": [{"match": "*", "weight_dcay": 0.0}]},
            ["groups[0]", "weight_dcay", "Did you mean `weight_decay`?"],
        ),
        ({"groups": [{"match": "*"}, {"match": "*", "lr": "fast"}]}, ["groups[1].lr", "fast"]),
        ({"groups": [{"match": "*", "lr": -1.0}]}, ["groups[0].lr"]),
        ({"groups": [{"match": "*", "betas": [0.9]}]}, ["groups[0].betas"]),
        ({"groups": [{"match": "*", "freeze": 1}]}, ["groups[0].freeze"]),
        ({"groups": [{"match": 3}]}, ["groups[0].match"]),
        ({"groups": [{"lr": 0.1}]}, ["groups[0]", "match"]),
        ({"groups": [{"match": "*", "sam_rho": 0.1}]}, ["sam_rho"]),
        ({"groups": [{"match": "*", "freeze": True}]}, ["frozen"]),
        ({"groups": {"match": "*"}}, ["groups"]),
        ({"layer_lr_decay": 1.5}, ["layer_lr_decay"]),
    ],
    ids=str,
)
def test_unusable_entries_are_refused(options, words):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(InputError) as error:
        get_optimizer("adamw")(model.named_parameters(), **options)
    assert all(word in str(error.value) for word in words)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("options", [{"groups": [{"match": "*", "lr": 0.1}]}, {"layer_lr_decay": 0.5}])
def test_parameters_without_names_are_refused(options):
    with pytest.raises(InputError, match="named_parameters"):
        get_optimizer("adamw")(nn.Linear(2, 2).parameters(), **options)


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["wte", "wpe", "h.0.attn", "h.0.mlp", "h.1.attn", "ln_f", "lm_head"], [0, 0, 1, 1, 2, 3, 3]),
        (["blocks.10.w", "blocks.2.w", "embedding.w", "head.0.w", "head.1.w"], [2, 1, 0, 3, 3]),
        (["stem.0.w", "stem.1.w", "blocks.0.body.0.w", "blocks.1.body.0.w", "head.w"], [0, 0, 1, 2, 3]),
        (["0.weight", "0.bias", "2.weight"], [0, 0, 1]),
        (["fc1.weight", "fc1.bias", "fc2.weight"], [0, 0, 1]),
        (["model.fc1.weight", "model.position.weight", "model.fc2.weight", "model.head.weight"], [1, 0, 2, 3]),
        (["conv1", "bn1", "layer1.0.conv", "layer1.1.conv", "layer2.0.conv", "fc"], [0, 0, 1, 2, 3, 4]),
        (["encoder.block.0.w", "encoder.norm", "decoder.embed.w", "decoder.block.0.w"], [1, 1, 0, 2]),
        (["weight", "bias"], [0, 0]),
    ],
)  # fmt: skip
def test_depth_is_found_from_names(names, layers):
    found, count = depths(names)
    assert [found[name] for name in names] == layers
    assert count == max(layers) + 1


def test_layers_have_rates_of_their_own_and_entries_win():
    model = gpt()
    entries = [{"match": "blocks.0.feedforward.*", "lr": 7e-4}]
    optimizer = get_optimizer("adamw")(model.named_parameters(), lr=1e-3, layer_lr_decay=0.5, groups=entries)
    rates = by_name(optimizer, "lr")
    assert rates["embedding.weight"] == pytest.approx(1e-3 / 8)
    assert rates["blocks.0.attention.qkv.weight"] == pytest.approx(1e-3 / 4)
    assert rates["blocks.0.feedforward.up.weight"] == 7e-4
    assert rates["blocks.1.attention.qkv.weight"] == pytest.approx(1e-3 / 2)
    assert rates["norm.weight"] == 1e-3
    assert [g["param_names"][0] for g in optimizer.param_groups][:2] == [
        "embedding.weight",
        "blocks.0.attention_norm.weight",
    ]


@pytest.mark.parametrize("tensor", [False, True], ids=["number", "tensor"])
def test_a_schedule_keeps_the_ratios_of_the_groups(tensor):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    lr = torch.tensor(1e-2, dtype=torch.float64) if tensor else 1e-2
    entries = [{"match": "2.bias", "weight_decay": 0.5}]
    optimizer = get_optimizer("adamw")(model.named_parameters(), lr=lr, layer_lr_decay=0.5, groups=entries)
    scheduler = SchedulerFactory.create("cosine", optimizer, 10)
    for _ in range(5):
        scheduler.step()
    rates = {name: float(rate) for name, rate in by_name(optimizer, "lr").items()}
    assert rates["2.weight"] == rates["2.bias"] == pytest.approx(scheduler.factors().lr * 1e-2)
    assert scheduler.factors().lr < 1
    assert rates["0.weight"] == pytest.approx(rates["2.weight"] / 4)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion"])
def test_constraints_hold_for_the_groups_that_have_them(name):
    generator = torch.Generator().manual_seed(0)
    model = nn.ModuleDict({key: nn.Linear(5, 4) for key in ("short", "unit", "positive", "free")})
    entries = [
        {"match": "short.*", "max_norm": 0.3},
        {"match": "unit.weight", "unit_norm": True},
        {"match": "positive.*", "non_negative": True},
    ]
    optimizer = get_optimizer(name)(model.named_parameters(), lr=0.05, groups=entries)
    for _ in range(5):
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
    lengths = model["short"].weight.norm(dim=1)
    assert lengths.max() <= 0.3 + 1e-6
    assert model["short"].bias.norm() <= 0.3 + 1e-6
    assert model["free"].weight.norm(dim=1).max() > 0.3
    torch.testing.assert_close(model["unit"].weight.norm(dim=1), torch.ones(4), rtol=0, atol=1e-6)
    assert all(p.min() >= 0 for p in model["positive"].parameters())
    assert model["free"].weight.min() < 0


def test_nothing_said_changes_nothing():
    params = [{"params": [torch.nn.Parameter(torch.ones(1))]}]
    assert expand(params, {"lr": 0.1}) is params


def test_no_parameters_are_refused_as_torch_does():
    with pytest.raises(ValueError, match="empty parameter list"):
        get_optimizer("muon")([])

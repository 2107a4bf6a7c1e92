"""The gate looks where objectives meet: not at a layer of which each has its own part, nor only at a branch of some."""

import pytest
import torch
from torch import nn

from ava.optimization import AdaptiveGradientSurgeon
from ava.optimization.gradients.surgery.overlap import telling


def opposed(outputs):
    """Three objectives of which the first pulls against the others."""
    return [(outputs[0] - 3).square().mean(), *((output + 3).square().mean() for output in outputs[1:])]


def one_layer(x):
    trunk, last = nn.Linear(5, 4), nn.Linear(4, 3)
    outputs = last(trunk(x).tanh())
    return [trunk, last], opposed([outputs[:, 0], outputs[:, 1], outputs[:, 2]])


def stacked(x):
    trunk, heads = nn.Linear(5, 4), nn.ModuleList(nn.Linear(4, 1) for _ in range(3))
    for head in heads[1:]:
        head.load_state_dict(heads[0].state_dict())
    features = trunk(x).tanh()
    vector = torch.stack(opposed([head(features) for head in heads]))
    return [trunk, heads], [vector[0], vector[1], vector[2]]


def unbound(x):
    modules, losses = stacked(x)
    return modules, list(torch.stack(losses))


def branches(x):
    trunk, left, right = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)
    first = trunk(x).tanh()
    outputs = [left(first), right(first), right(first).tanh()]
    return [trunk, left, right], [*opposed(outputs), left(first).square().sum()]


CASES = pytest.mark.parametrize("build", [one_layer, stacked, unbound, branches])


def make(build):
    torch.manual_seed(0)
    modules, losses = build(torch.randn(16, 5))
    return nn.ModuleList(modules), losses


@CASES
def test_conflicts_below_the_last_layer_are_seen(build):
    network, losses = make(build)
    surgeon = AdaptiveGradientSurgeon()
    surgeon.process_losses(network, losses).backward()
    exact_network, exact_losses = make(build)
    exact = AdaptiveGradientSurgeon(auto_detect=False)
    exact.process_losses(exact_network, exact_losses).backward()
    assert surgeon.get_stats()["num_conflicts"] > 0
    assert exact.get_stats()["surgery_applied"] == surgeon.get_stats()["surgery_applied"] == 1
    for one, other in zip(network.parameters(), exact_network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@CASES
def test_what_was_found_is_remembered(build):
    network, losses = make(build)
    surgeon = AdaptiveGradientSurgeon()
    surgeon.process_losses(network, losses).backward(retain_graph=True)
    resumed = AdaptiveGradientSurgeon()
    resumed.load_state_dict(surgeon.state_dict())
    for each in (surgeon, resumed):
        each.process_losses(network, losses).backward(retain_graph=True)
    assert surgeon.get_stats() == resumed.get_stats()
    assert surgeon.get_stats()["num_looks"] == 2


A, B, NOTHING = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]), torch.zeros(2)


@pytest.mark.parametrize(
    ("rows", "num_layers", "found"),
    [
        ([[A, A], [-A, A]], 1, [0]),
        ([[A, A], [B, A]], 1, [1]),
        ([[A, A, A], [B, A, A]], 2, [1, 2]),
        ([[A, A], [B, B]], 1, [0]),
        ([[None, A], [A, A]], 1, [1]),
        ([[None, A], [A, A], [A, A]], 1, [0, 1]),
        ([[A, A], [A, A], [NOTHING, NOTHING]], 1, [0]),
        ([[A, A], [A * float("nan"), A]], 1, None),
    ],
    ids=["last", "apart", "two", "nowhere", "absent", "branch", "zero", "nan"],
)
def test_layers_that_tell(rows, num_layers, found):
    layers = [torch.zeros(2) for _ in rows[0]]
    places = {id(layer): place for place, layer in enumerate(layers)}
    assert telling(layers, num_layers, lambda some: [[row[places[id(one)]] for one in some] for row in rows]) == found

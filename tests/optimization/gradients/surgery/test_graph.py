"""The graph is divided into what one objective alone reaches and what several do."""

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind
from ava.optimization.gradients.surgery.graph import SHARED, divide
from ava.optimization.gradients.surgery.reconciler import Reconciler
from tests.optimization.gradients.surgery.trunks import Trunk, losses_of, samples


def names_of(net, tensors):
    known = {id(p): name for name, p in net.named_parameters()}
    return {known[id(tensor)] for tensor in tensors}


def test_heads_belong_to_their_objectives_and_the_trunk_to_all():
    net = Trunk()
    graph = divide(losses_of(net, samples()))
    assert names_of(net, graph.leaves(SHARED)) == {f"trunk.{i}.{kind}" for i in (0, 3) for kind in ("weight", "bias")}
    for index in range(3):
        assert names_of(net, graph.leaves(index)) == {f"heads.{index}.weight", f"heads.{index}.bias"}
    assert sorted(entry.objective for entry in graph.entries) == [0, 1, 2]
    assert len({entry.node for entry in graph.entries}) == 1
    assert not graph.starts


def test_a_parameter_that_a_head_uses_again_is_an_entry_of_its_own():
    net = nn.Linear(6, 6)
    features = torch.tanh(net(samples()))
    losses = {"a": features.sum(), "b": nn.functional.linear(features, net.weight).square().sum()}
    graph = divide(losses)
    assert [entry.is_parameter for entry in graph.entries if entry.objective == 1].count(True) == 1
    assert names_of(net, graph.leaves(SHARED)) == {"weight", "bias"}
    assert not graph.leaves(1)


def test_a_loss_that_is_part_of_another_starts_in_the_shared_part():
    net = Trunk()
    losses = losses_of(net, samples())
    graph = divide({"part": losses["o0"], "whole": losses["o0"] + losses["o1"]})
    assert graph.starts == [0]
    assert graph.seeds([0.5, 2.0]) == [0.5, 1.0]


def test_what_enters_is_weighed_once_on_every_path():
    """Twice through the same feature, and past it: the weight stands before each term once."""
    net, head = nn.Linear(6, 4), nn.Linear(4, 1)
    feature = torch.tanh(net(samples()))
    early = feature * 2
    losses = {"a": (head(early) * early).sum() + feature.sum(), "b": early.exp().sum()}
    rows = [torch.autograd.grad(loss, [net.weight], retain_graph=True)[0] for loss in losses.values()]
    graph = divide(losses)
    with graph.weighed([3.0, -0.5]):
        torch.autograd.backward(list(losses.values()), retain_graph=True)
    torch.testing.assert_close(net.weight.grad, 3 * rows[0] - 0.5 * rows[1], rtol=1e-5, atol=1e-5)
    net.weight.grad = None
    torch.autograd.backward(list(losses.values()))  # the hooks are gone
    torch.testing.assert_close(net.weight.grad, rows[0] + rows[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_a_compiled_network_is_refused(level):
    net = Trunk()
    compiled = torch.compile(net, backend="aot_eager")
    reconciler = Reconciler(bind("sum"), list(net.parameters()), level=level)
    with pytest.raises(InputError, match="Do not compile"):
        reconciler.backward(losses_of(compiled, samples()), 1.0)

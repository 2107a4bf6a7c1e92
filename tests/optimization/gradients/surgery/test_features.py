"""At features level one backward pass gives what a pass for each head and one for the trunk give."""

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.objectives import Objectives
from ava.optimization.gradients.surgery.reconciler import Reconciler
from ava.optimization.gradients.surgery.rows import Rows
from tests.optimization.gradients.surgery.test_reconciler import METHODS, reconcile
from tests.optimization.gradients.surgery.trunks import Trunk, assert_same, gradients, losses_of, samples


def by_the_book(losses, features, parameters, name, weight=0.125):
    """Heads by their own loss, the trunk by the combined gradients of the features."""
    rows = [torch.autograd.grad(weight * loss, features, retain_graph=True, allow_unused=True) for loss in losses]
    rows = [[torch.zeros_like(f) if g is None else g for f, g in zip(features, row, strict=True)] for row in rows]
    if needs(name) == "rows":
        combined = bind(name)(Rows(rows, [f.detach() for f in features]))
    else:
        wide = torch.stack([torch.cat([g.double().reshape(-1) for g in row]) for row in rows])
        values = torch.stack([loss.detach().double() for loss in losses]) * weight
        weights = bind(name)(Objectives(wide @ wide.T, values)).tolist()
        combined = [sum(w * g for w, g in zip(weights, column, strict=True)) for column in zip(*rows, strict=True)]
    trunk = torch.autograd.grad(features, parameters, combined, retain_graph=True, allow_unused=True)
    total = torch.autograd.grad(weight * sum(losses), parameters, retain_graph=True, allow_unused=True)
    return [whole if part is None else part for part, whole in zip(trunk, total, strict=True)]


@pytest.mark.parametrize("name", [name for name in METHODS if needs(name) != "losses"])
def test_one_pass_does_what_several_do(name):
    _, found = reconcile(Trunk(), name, level="features")
    net = Trunk()
    features = net.trunk(samples())
    outputs = [head(features) for head in net.heads]
    losses = losses_of(lambda _: outputs, None)
    assert_same(found, by_the_book(list(losses.values()), [features], list(net.parameters()), name))


class Pyramid(nn.Module):
    """All heads read two features, and the second is made from the first."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.low, self.high = nn.Linear(6, 5), nn.Linear(5, 4)
        self.of_low, self.of_high = (nn.ModuleList(nn.Linear(n, 2) for _ in range(3)) for n in (5, 4))

    def features(self, x):
        low = torch.tanh(self.low(x))
        return low, torch.tanh(self.high(low))

    def heads(self, low, high):
        return [a(low) + b(high) for a, b in zip(self.of_low, self.of_high, strict=True)]

    def forward(self, x):
        return self.heads(*self.features(x))


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "nash_mtl"])
def test_features_of_several_depths(name):
    """A feature that leads to another gets the direct gradients combined, and what comes through the other."""
    reconciler, found = reconcile(Pyramid(), name, level="features")
    net = Pyramid()
    features = net.features(samples())
    cut = [feature.detach().requires_grad_() for feature in features]
    losses = list(losses_of(lambda _: net.heads(*cut), None).values())
    rows = [torch.autograd.grad(0.125 * loss, cut, retain_graph=True) for loss in losses]
    wide = torch.stack([torch.cat([g.double().flatten() for g in row]) for row in rows])
    torch.testing.assert_close(reconciler.gram, wide @ wide.T, rtol=1e-5, atol=1e-5)
    combined = [
        sum(w * g for w, g in zip(reconciler.weights.tolist(), column, strict=True))
        for column in zip(*rows, strict=False)
    ]
    (0.125 * sum(losses)).backward()
    torch.autograd.backward(features, combined)
    assert_same(found, gradients(list(net.parameters())))


def test_the_trunk_is_gone_through_once():
    net, passes = Trunk(), []
    net.trunk[0].weight.register_hook(lambda g: passes.append(g) or None)
    reconcile(net, "upgrad", level="features")
    assert len(passes) == 1


def test_values_of_features_may_be_given():
    """Where neither the maker nor a consumer of a feature kept its values."""

    class Shifted(Trunk):
        def forward(self, x):
            self.kept = self.trunk(x) + 1.0
            return [(self.kept - 1.0) @ head.weight.T.detach() * head.weight.sum() for head in self.heads]

    net = Shifted()
    reconciler = Reconciler(bind("graddrop"), list(net.parameters()), needs="rows", level="features")
    with pytest.raises(InputError, match=r"features=\[...\]"):
        reconciler.backward(losses_of(net, samples()), 0.1)
    losses = losses_of(net, samples())
    reconciler.backward(losses, 0.1, features=[net.kept])
    reconciler.finish(0)
    assert net.trunk[0].weight.grad is not None


class Branching(nn.Module):
    """The third head leaves the trunk before the others do."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(6, 5), nn.Linear(5, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(5, 2)])

    def forward(self, x):
        low = torch.tanh(self.low(x))
        high = torch.tanh(self.high(low))
        return [head(feature) for head, feature in zip(self.heads, (high, high, low), strict=True)]


class Interleaved(Pyramid):
    """A head that was computed before the features of the next were."""

    def forward(self, x):
        low = torch.tanh(self.low(x))
        begun = [head(low).exp().log() for head in self.of_low]
        high = torch.tanh(self.high(low))
        return [a + b(high) for a, b in zip(begun, self.of_high, strict=True)]


class Apart(nn.Module):
    """Every objective has its own pass through the shared layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.heads = nn.Linear(6, 4), nn.ModuleList(nn.Linear(4, 2) for _ in range(3))

    def forward(self, x):
        return [head(torch.tanh(self.layer(x + i))) for i, head in enumerate(self.heads)]


class Split(nn.Module):
    """Every head reads its own part of the features."""

    def __init__(self):
        super().__init__()
        self.layer, self.heads = nn.Linear(6, 6), nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def forward(self, x):
        return [head(part) for head, part in zip(self.heads, self.layer(x).split(2, 1), strict=True)]


class OneLayer(nn.Module):
    """One layer gives all outputs, of which every objective reads its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x):
        outputs = self.last(torch.tanh(self.layer(x)))
        return [outputs[:, 0], outputs[:, 1:3], outputs[:, 3:]]


@pytest.mark.parametrize(("build", "problem"), [
    (OneLayer, "'o0' reads no part of the features that another"),
    (Branching, "'o2' reads no part of the features that another"), (Apart, "share parameters at most"),
    (Split, "'o0' reads no part of the features that another"),
], ids=["one layer", "branching", "apart", "split"])  # fmt: skip
def test_where_features_cannot_be_compared_the_level_is_refused(build, problem):
    with pytest.raises(InputError, match=f"{problem}.*level=parameters"):
        reconcile(build(), "pcgrad", level="features")
    reconcile(build(), "pcgrad")


def test_a_head_in_between_the_layers_of_the_trunk_is_refused():
    """The engine runs it after the layers above it, when their features' gradients are long needed."""
    with pytest.raises(InputError, match="Compute the heads after the shared part"):
        reconcile(Interleaved(), "mgda", level="features")
    reconcile(Interleaved(), "mgda")


def test_a_loss_within_another_is_refused():
    net = Trunk()
    losses = losses_of(net, samples())
    reconciler = Reconciler(bind("sum"), list(net.parameters()), level="features")
    with pytest.raises(InputError, match="'a' is a part of another"):
        reconciler.backward({"a": losses["o0"], "b": losses["o0"] + losses["o1"]}, 1.0)

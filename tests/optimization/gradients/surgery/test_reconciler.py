"""A reconciler leaves in `.grad` what plain arithmetic on one gradient a loss gives, and remembers what it must."""

import gc
import itertools
import math
import weakref

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ava.errors import InputError
from ava.optimization import list_surgery
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.reconciler import Reconciler
from tests.optimization.gradients.surgery.trunks import Trunk, assert_same, gradients, losses_of, reconciled, samples

METHODS = [name for name in list_surgery() if name != "none"]


def reconcile(net, name="pcgrad", x=None, **options):
    """One step with a new reconciler."""
    parameters = list(net.parameters())
    reconciler = Reconciler(bind(name), parameters, needs=needs(name), **options)
    reconciler.backward(losses_of(net, samples() if x is None else x), 0.125)
    reconciler.finish(0)
    return reconciler, gradients(parameters)


@pytest.mark.parametrize("name", METHODS)
def test_the_result_is_that_of_plain_arithmetic(name):
    net = Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind(name), parameters, needs=needs(name), seed=3)
    reconciler.backward(losses_of(net, samples()), 0.125)
    reconciler.finish(4)
    wanted = reconciled(losses_of(net, samples()), parameters, name, 0.125, step=4, seed=3)
    assert_same(gradients(parameters), wanted)


def test_heads_keep_their_own_gradient_and_the_unused_get_none():
    net = Trunk()
    _, found = reconcile(net, "mgda")
    named = dict(zip([n for n, _ in net.named_parameters()], found, strict=True))
    losses = losses_of(net, samples())
    for index, loss in enumerate(losses.values()):
        (own,) = torch.autograd.grad(0.125 * loss, [net.heads[index].weight], retain_graph=True)
        assert torch.equal(named[f"heads.{index}.weight"], own)
    assert named["unused.weight"] is None
    assert named["unused.bias"] is None


def test_without_heads_everything_is_shared():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    losses = lambda: {f"o{i}": (column - i).square().sum() for i, column in enumerate(net(samples()).T)}  # noqa: E731
    parameters = list(net.parameters())
    reconciler = Reconciler(bind("upgrad"), parameters)
    reconciler.backward(losses(), 1.0)
    reconciler.finish(0)
    assert_same(gradients(parameters), reconciled(losses(), parameters, "upgrad", 1.0))


class Tied(nn.Module):
    """The first layer's weight is also the second head's; the first two heads share a layer that the third has not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 6)
        self.neck, self.a, self.c = nn.Linear(6, 4), nn.Linear(4, 2), nn.Linear(6, 2)

    def forward(self, x):
        features = torch.tanh(self.first(x))
        neck = torch.tanh(self.neck(features))
        return [self.a(neck), nn.functional.linear(features, self.first.weight) + neck.sum(1, True), self.c(features)]


@pytest.mark.parametrize("name", ["pcgrad", "cagrad", "graddrop", "famo"])
def test_tied_weights_and_parts_that_some_objectives_share(name):
    net = Tied()
    _, found = reconcile(net, name)
    assert_same(found, reconciled(losses_of(net, samples()), list(net.parameters()), name, 0.125))


def test_a_loss_may_be_given_twice():
    net = Trunk()
    parameters = list(net.parameters())
    losses = lambda: (lambda found: {**found, "again": found["o0"]})(losses_of(net, samples()))  # noqa: E731
    for every in (1, 2):
        reconciler = Reconciler(bind("imtl_g"), parameters, every=every)
        for step in range(every):
            reconciler.backward(losses(), 1.0)
            reconciler.finish(step)
        assert_same(gradients(parameters), reconciled(losses(), parameters, "imtl_g", 1.0))


@pytest.mark.parametrize("level", ["parameters", "features"])
@pytest.mark.parametrize("name", ["pcgrad", "uncertainty", "graddrop"])
def test_the_mean_divides_everything(name, level):
    _, summed = reconcile(Trunk(), name, level=level)
    _, averaged = reconcile(Trunk(), name, level=level, reduction="mean")
    assert_same(averaged, [None if g is None else g / 3 for g in summed], rtol=1e-5)


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_in_between_the_last_weights_are_used_on_the_shared_part(level):
    net = Tied() if level == "parameters" else Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind("mgda"), parameters, level=level, every=3)
    seen = []
    for step in range(7):
        x = samples(8 + step)
        reconciler.backward(losses_of(net, x), 0.1)
        reconciler.finish(step)
        seen.append(reconciler.weights.clone())
        rows = [torch.autograd.grad(0.1 * loss, parameters, retain_graph=True, allow_unused=True)
                for loss in losses_of(net, x).values()]  # fmt: skip
        for parameter, *column in zip(parameters, *rows, strict=True):
            there = [(w, g) for w, g in zip(seen[-1].tolist(), column, strict=True) if g is not None]
            wanted = there[0][1] if len(there) == 1 else sum(w * g for w, g in there)
            assert_same([parameter.grad], [wanted if there else None])
    assert [torch.equal(a, b) for a, b in itertools.pairwise(seen)] == [True, True, False, True, True, False]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6], ids=str)
@pytest.mark.parametrize("level", ["parameters", "features"])
@pytest.mark.parametrize("name", [n for n in METHODS if needs(n) == "gram"])
def test_the_weights_do_not_depend_on_the_unit_of_all_losses(name, level, scale):
    reconciler, _ = reconcile(Trunk(), name, level=level)
    net = Trunk()
    scaled = Reconciler(bind(name), list(net.parameters()), level=level)
    scaled.backward(losses_of(net, samples()), 0.125 * scale)
    scaled.finish(0)
    torch.testing.assert_close(scaled.weights, reconciler.weights, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_what_is_not_finite_reaches_the_guard_and_not_the_method(level):
    class Asked:
        times = 0

        def __call__(self, objectives):
            self.times += 1
            return torch.ones(3, dtype=torch.float64)

    net, method = Trunk(), Asked()
    parameters = list(net.parameters())
    reconciler = Reconciler(method, parameters, level=level)
    for step, bad in enumerate((1.0, math.inf, math.nan, 1.0)):
        reconciler.backward(losses_of(net, samples(), (1.0, bad, 1.0)), 1.0)
        reconciler.finish(step)
        assert bool(net.trunk[0].weight.grad.isfinite().all()) == math.isfinite(bad)
    assert method.times == 2
    assert bool(reconciler.gram.isfinite().all())


@pytest.mark.parametrize("name", ["pcgrad", "famo", "gradnorm", "uncertainty"])
def test_a_resumed_run_goes_on_as_it_would_have(name):
    def steps(reconciler, net, span):
        for step in span:
            reconciler.backward(losses_of(net, samples(6 + step)), 0.1)
            reconciler.finish(step)
            with torch.no_grad():
                for p in net.parameters():
                    if p.grad is not None:
                        p -= 0.01 * p.grad

    def build(net):
        return Reconciler(bind(name), list(net.parameters()), needs=needs(name), every=2, seed=7)

    net = Trunk()
    reconciler = build(net)
    steps(reconciler, net, range(3))
    kept, weights = reconciler.state_dict(), {k: v.clone() for k, v in net.state_dict().items()}
    steps(reconciler, net, range(3, 6))
    other = Trunk()
    other.load_state_dict(weights)
    resumed = build(other)
    resumed.load_state_dict(kept)
    steps(resumed, other, range(3, 6))
    assert torch.equal(resumed.weights, reconciler.weights)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))


class Canary:
    """Lives as long as the node that holds it."""


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_no_graph_outlives_its_step(level):
    net = Trunk()
    reconciler = Reconciler(bind("pcgrad"), list(net.parameters()), level=level, every=2)
    gc.disable()
    try:
        for step in range(3):
            losses = losses_of(net, samples())
            canary = Canary()
            losses["o0"].grad_fn.metadata["canary"] = canary
            alive = weakref.ref(canary)
            reconciler.backward(losses, 1.0)
            del losses, canary
            reconciler.finish(step)
            assert alive() is None
    finally:
        gc.enable()


def test_the_losses_and_the_gram_matrix_are_those_of_the_step():
    reconciler, _ = reconcile(Trunk(), "sum")
    net = Trunk()
    shared = list(net.trunk.parameters())
    rows = [torch.autograd.grad(0.125 * loss, shared, retain_graph=True) for loss in losses_of(net, samples()).values()]
    wide = torch.stack([torch.cat([g.double().flatten() for g in row]) for row in rows])
    torch.testing.assert_close(reconciler.gram, wide @ wide.T, rtol=1e-5, atol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(wide[0], wide[2], dim=0)
    assert reconciler.columns()["surgery/cosine/o0/o2"] == pytest.approx(float(cosine), abs=1e-5)
    assert reconciler.columns()["surgery/weight/o1"] == 1.0


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_one_graph_one_dropout(level):
    """All rows come from one forward pass: with the sum they add up to its gradient."""
    net = Trunk(dropout=0.5)
    torch.manual_seed(1)
    _, found = reconcile(net, "sum", level=level)
    net.zero_grad()
    torch.manual_seed(1)
    (0.125 * sum(losses_of(net, samples()).values())).backward()
    assert_same(found, gradients(list(net.parameters())))


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_activations_may_be_made_anew(level):
    _, wanted = reconcile(Trunk(), "cagrad", level=level)
    net = Trunk()
    forward = net.trunk.forward
    net.trunk.forward = lambda x: checkpoint(forward, x, use_reentrant=False)
    _, found = reconcile(net, "cagrad", level=level)
    assert_same(found, wanted)


def test_a_method_that_learns_from_its_step_is_told():
    net = Trunk()
    reconciler = Reconciler(bind("famo"), list(net.parameters()), needs="losses", every=2)
    for step in range(3):
        reconciler.backward(losses_of(net, samples()), 0.1)
        reconciler.finish(step)
        assert reconciler.wants_hindsight == (step != 1)
        if reconciler.wants_hindsight:
            before = reconciler.state_dict()["method"]["xi"].clone()
            reconciler.observe({f"o{i}": torch.tensor(1.0 + i) for i in range(3)})
            assert not torch.equal(reconciler.state_dict()["method"]["xi"], before)
    assert not Reconciler(bind("sum"), []).wants_hindsight


def test_bad_losses_are_named():
    net = Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind("sum"), parameters)
    with pytest.raises(InputError, match="'o1' depends on no parameter"):
        reconciler.backward({**losses_of(net, samples()), "o1": torch.tensor(1.0)}, 1.0)
    with pytest.raises(InputError, match=r"'o1' must be one number, and has shape \(8, 2\)"):
        reconciler.backward({**losses_of(net, samples()), "o1": net(samples())[1]}, 1.0)
    with pytest.raises(InputError, match="at least one"):
        reconciler.finish(0)
    reconciler.backward(losses_of(net, samples()), 1.0)
    reconciler.finish(0)
    with pytest.raises(InputError, match="objectives are o0, o1, o2, and now o0"):
        reconciler.backward({"o0": losses_of(net, samples())["o0"]}, 1.0)
    with pytest.raises(InputError, match="every=2"):
        Reconciler(bind("graddrop"), parameters, needs="rows", every=2)


def test_a_step_that_failed_leaves_nothing_behind():
    net = Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind("pcgrad"), parameters)
    reconciler.backward(losses_of(net, samples()), 1.0)
    with pytest.raises(InputError):
        reconciler.backward({}, 1.0)
    reconciler.backward(losses_of(net, samples()), 0.125)
    reconciler.finish(0)
    assert_same(gradients(parameters), reconcile(Trunk())[1], rtol=1e-6)

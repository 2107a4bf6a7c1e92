"""Micro-batches, precision and loss scale change nothing."""

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.reconciler import Reconciler
from tests.optimization.gradients.surgery.test_reconciler import METHODS, reconcile
from tests.optimization.gradients.surgery.trunks import Trunk, assert_same, gradients, losses_of, samples


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_are_one_batch(name):
    _, whole = reconcile(Trunk(), name)
    net = Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind(name), parameters, needs=needs(name), accumulates=True)
    for part in samples().split([3, 1, 4]):
        reconciler.backward(losses_of(net, part), 0.125)
        assert all(p.grad is None for p in parameters)
    reconciler.finish(0)
    assert_same(gradients(parameters), whole)


@pytest.mark.parametrize(("name", "level", "remedy"), [
    ("pcgrad", "features", "level=parameters"), ("famo", "parameters", "accumulates=True"),
], ids=["features", "losses"])  # fmt: skip
def test_what_one_pass_cannot_accumulate_is_refused(name, level, remedy):
    net = Trunk()
    reconciler = Reconciler(bind(name), list(net.parameters()), needs=needs(name), level=level)
    reconciler.backward(losses_of(net, samples()), 0.1)
    with pytest.raises(InputError, match=remedy):
        reconciler.backward(losses_of(net, samples()), 0.1)


def test_with_old_weights_every_level_accumulates():
    net = Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind("mgda"), parameters, level="features", every=2)
    reconciler.backward(losses_of(net, samples()), 0.125)
    reconciler.finish(0)
    wanted = gradients(parameters)
    for part in samples().split(4):
        reconciler.backward(losses_of(net, part), 0.125)
    reconciler.finish(1)
    assert_same(gradients(parameters), wanted)


@pytest.mark.parametrize("level", ["parameters", "features"])
@pytest.mark.parametrize("name", ["pcgrad", "gradnorm", "famo"])
def test_a_loss_scale_is_divided_out_by_the_scaler(name, level):
    plain, wanted = reconcile(Trunk(), name, level=level)
    net = Trunk()
    parameters = list(net.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    scale = scaler.scale(torch.tensor(1.0))
    reconciler = Reconciler(bind(name), parameters, needs=needs(name), level=level)
    reconciler.backward(losses_of(net, samples()), 0.125, scale=scale)
    reconciler.finish(0)
    scaler.unscale_(optimizer)
    assert_same(gradients(parameters), wanted, rtol=1e-5)
    torch.testing.assert_close(reconciler.weights, plain.weights, rtol=1e-5, atol=1e-5)
    if plain.gram is not None:
        torch.testing.assert_close(reconciler.gram, plain.gram, rtol=1e-5, atol=1e-5)


def test_an_overflow_under_a_loss_scale_is_seen_by_the_scaler():
    net = Trunk()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    scale = scaler.scale(torch.tensor(1.0))
    reconciler = Reconciler(bind("nash_mtl"), list(net.parameters()))
    reconciler.backward(losses_of(net, samples(), (1.0, 1e38, 1.0)), 1.0, scale=scale)
    reconciler.finish(0)
    before = net.trunk[0].weight.clone()
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(net.trunk[0].weight, before)
    assert scaler.get_scale() < 2.0**16


@pytest.mark.parametrize("level", ["parameters", "features"])
def test_under_bfloat16_the_rows_are_those_of_autocast(level):
    def losses(net):
        with torch.autocast("cpu", torch.bfloat16):
            return losses_of(net, samples())

    net = Trunk()
    parameters = list(net.parameters())
    reconciler = Reconciler(bind("sum"), parameters, level=level)
    reconciler.backward(losses(net), 0.125)
    reconciler.finish(0)
    found = gradients(parameters)
    net.zero_grad()
    (0.125 * sum(losses(net).values())).backward()
    assert_same(found, gradients(parameters), rtol=0.02)  # rounded in another order
    assert found[0].dtype == torch.float32

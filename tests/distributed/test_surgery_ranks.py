"""Surgery over ranks is that of one process: rows are averaged, and all ranks decide alike, to the bit."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

START = """
import os

import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.reconciler import Reconciler
from tests.optimization.gradients.surgery.trunks import Trunk, assert_same, gradients, losses_of, samples

distributed.init_process_group("gloo")
rank = distributed.get_rank()

def sums(tensor):
    distributed.all_reduce(tensor)
    return tensor

def train(net, parameters, parts, name, steps=2, ranks=1, **options):
    whole = {"sum_over_ranks": sums, "world_size": 2} if ranks == 2 else {}
    options |= {"needs": needs(name), "seed": 1, "accumulates": len(parts) > 1}
    reconciler = Reconciler(bind(name), parameters, **whole, **options)
    for step in range(steps):
        for part in parts:
            reconciler.backward(losses_of(net, part), ranks / 8)
        reconciler.finish(step)
        with torch.no_grad():
            for p in parameters:
                if p.grad is not None:
                    p -= 0.01 * p.grad
    return reconciler

def alike(tensor):
    other = tensor.detach().clone()
    distributed.broadcast(other, 0)
    assert torch.equal(other, tensor), "the ranks differ"

def check(wrap, name, level, batches, **options):
    one = Trunk()
    wanted = train(one, list(one.parameters()), samples().split(8 // batches), name, level=level, **options)
    net = Trunk()
    wrapped, parameters = wrap(net)
    mine = samples()[4 * rank:4 * rank + 4]
    found = train(wrapped, parameters, mine.split(4 // batches), name, ranks=2, level=level, **options)
    whole = [p.full_tensor() if hasattr(p, "full_tensor") else p for p in parameters]
    assert_same([p.detach() for p in whole], [p.detach() for p in one.parameters()])
    for p in whole:
        alike(p.detach())
    for ours, theirs in ((found.weights, wanted.weights), (found.gram, wanted.gram)):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
            alike(ours)
"""

END = """
distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""

REPLICAS = """
class Silent(nn.Module):
    # DDP that never exchanges gradients itself
    def __init__(self, net):
        super().__init__()
        self.net = DistributedDataParallel(net)

    def forward(self, x):
        with self.net.no_sync():
            return self.net(x)

def wrap(net):
    return Silent(net), list(net.parameters())

for name in ("pcgrad", "mgda", "gradnorm", "graddrop", "famo"):
    for level in ("parameters", "features"):
        check(wrap, name, level, batches=1)
    check(wrap, name, "parameters", batches=2)
check(wrap, "cagrad", "parameters", batches=2, every=2, steps=4)
check(wrap, "cagrad", "features", batches=1, every=2, steps=4, reduction="mean")

# One rank's samples reach one head only
net = Trunk()
parameters = list(net.parameters())
reconciler = Reconciler(bind("pcgrad"), parameters, sum_over_ranks=sums, world_size=2)
losses = losses_of(net, samples())
losses = losses if rank else {name: losses["o0"] for name in losses}
reconciler.backward(losses, 1.0)
reconciler.finish(0)
for p in parameters:
    if p.grad is not None:
        alike(p.grad)
assert net.heads[2].weight.grad is not None and net.unused.weight.grad is None

# With that option all outputs pass one node of the graph
watched = DistributedDataParallel(Trunk(), find_unused_parameters=True)
for level in ("parameters", "features"):
    reconciler = Reconciler(bind("pcgrad"), list(watched.parameters()), level=level)
    try:
        with watched.no_sync():
            reconciler.backward(losses_of(watched, samples()), 1.0)
    except InputError as error:
        assert "without find_unused_parameters" in str(error)
    else:
        raise AssertionError("not refused")
"""

SHARDS = """
def wrap_root(net):
    fully_shard(net)
    return net, list(net.parameters())

def wrap_layers(net):
    for layer in (net.trunk[0], net.trunk[3], *net.heads):
        fully_shard(layer)
    return wrap_root(net)

for wrap in (wrap_root, wrap_layers):
    for name in ("pcgrad", "gradnorm", "graddrop", "famo"):
        for level in ("parameters", "features"):
            check(wrap, name, level, batches=1)
    check(wrap, "mgda", "parameters", batches=2)
    check(wrap, "cagrad", "parameters", batches=1, every=2, steps=4)
    check(wrap, "cagrad", "features", batches=1, every=2, steps=4)
"""


@pytest.mark.parametrize("body", [REPLICAS, SHARDS], ids=["replicas", "shards"])
def test_two_ranks_do_what_one_process_does(body, tmp_path):
    run_on_two_ranks(START + body + END, tmp_path)

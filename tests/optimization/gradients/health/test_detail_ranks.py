"""What several ranks find together is what one process finds."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

SCRIPT = """
import os

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from ava.optimization.gradients.health.detail.activations import ActivationWatch
from ava.optimization.gradients.health.detail.layers import LayerWatch
from ava.optimization.gradients.health.detail.noise_scale import NoiseScale, noise_scale
from ava.optimization.gradients.health.detail.report import Detail
from ava.optimization.gradients.health.detail.small_batch import Draw, SmallBatch
from ava.optimization.gradients.health.measure import measure

distributed.init_process_group("gloo")
rank = distributed.get_rank()

def reducer(op):
    def reduce(values):
        distributed.all_reduce(values, op=op)
        return values
    return reduce

sum_, max_ = reducer(distributed.ReduceOp.SUM), reducer(distributed.ReduceOp.MAX)
same = torch.testing.assert_close


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(5, 6), "b": nn.ReLU(), "c": nn.Linear(6, 2), "unused": nn.Linear(2, 2)})


class Net(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, x):
        return self.parts["c"](self.parts["b"](self.parts["a"](x)))


def taken(model, inputs, factor, wrapped):
    with ActivationWatch(model) as watch, SmallBatch(model.parameters()) as small:
        (factor * wrapped(inputs).square().sum()).backward()
    measured = measure(model.parameters())
    layers = LayerWatch(model.named_parameters(), measured)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    return Detail(1, layers.after_step(), watch, Draw(small.square, len(inputs), factor, measured.norm, 12))


# data parallel: unequal shares, one micro-batch a rank
inputs = torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
whole = Net(network())
expected = taken(whole, inputs, 1 / 12, whole).read(NoiseScale(), lambda v: v, lambda v: v)
assert expected["noise_scale"] is None
part = inputs[:8] if rank == 0 else inputs[8:]
model = Net(network())
noise = NoiseScale()
found = taken(model, part, 2 / 12, DistributedDataParallel(model, find_unused_parameters=True)).read(noise, sum_, max_)
for kind in ("layers", "activations"):
    for name, row in expected[kind].items():
        for key, value in row.items():
            assert found[kind][name][key] == value or abs(found[kind][name][key] - value) < 1e-5, (kind, name, key)
squares = []
for rows in (inputs[:8], inputs[8:]):
    alone = Net(network())
    alone(rows).square().sum().div(len(rows)).backward()
    squares.append(float(measure(alone.parameters()).norm) ** 2)
whole = Net(network())
whole(inputs).square().sum().div(12).backward()
b = 1 / ((1 / 8 + 1 / 4) / 2)
trace, square = noise_scale(sum(squares) / 2, b, float(measure(whole.parameters()).norm) ** 2, 12)
state = noise.state_dict()
same(state["trace"] / 0.05, trace, rtol=1e-5, atol=1e-9)
same(state["square"] / 0.05, square, rtol=1e-5, atol=1e-9)

# a module that runs on one rank only
model = Net(network())
with ActivationWatch(model) as watch:
    if rank == 0:
        model(inputs)
row = watch.read(sum_, max_)["parts.b"]
with ActivationWatch(model) as watch:
    model(inputs)
assert row == watch.read()["parts.b"]

# shards, of uneven size
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(1)
plain = [nn.Parameter(torch.randn(shape)) for shape in [(5, 3), (1, 4), (7,)]]
shards = [nn.Parameter(distribute_tensor(p.detach().clone(), mesh, [Shard(0)])) for p in plain[:2]]
shards.append(nn.Parameter(plain[2].detach().clone()))
rows = []
for params in (plain, shards):
    for p, q in zip(plain, params):
        gradient = p.detach().relu()
        q.grad = gradient if q is params[2] or params is plain else distribute_tensor(gradient, mesh, [Shard(0)])
    watch = LayerWatch([(str(i), p) for i, p in enumerate(params)], measure(params))
    with torch.no_grad():
        for p in params:
            p.sub_(p.grad, alpha=0.3)
    rows.append(watch.after_step().read())
    with torch.no_grad():
        for p in params:
            p.add_(p.grad, alpha=0.3)
for name in rows[0]:
    for key in rows[0][name]:
        same(rows[0][name][key], rows[1][name][key], rtol=1e-6, atol=1e-9)
distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""


def test_ranks_together(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)

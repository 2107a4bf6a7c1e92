"""Two ranks that each hold a part of the weights measure, and clip, what one process does."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

SCRIPT = """
import math
import os

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from ava.optimization import GradientHealthMonitor
from ava.optimization.gradients.health.measure import measure

distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))


def build(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3), nn.Linear(3, 3)).to(dtype)


def backward(model, dtype=torch.float32):
    torch.manual_seed(1)
    model(torch.randn(6, 5, dtype=dtype)).square().sum().backward()


def sharded(model):
    return fully_shard(model, mesh=mesh)  # 3 rows on two ranks: parts of unequal length


def parallel(model):
    return parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def compare(model, whole, what):
    given, wanted = measure(model.parameters(), statistics=True), measure(whole.parameters(), statistics=True)
    close = dict(rtol=1e-5, atol=1e-6, equal_nan=True, msg=lambda text: f"{what}: {text}")
    for name in ("norms", "norm", "found_inf"):
        torch.testing.assert_close(getattr(given, name), getattr(wanted, name), **close)
    for name, value in vars(wanted.statistics).items():
        torch.testing.assert_close(getattr(given.statistics, name), value, **close)
    seen = [None, None]
    distributed.all_gather_object(seen, [given.norm.item(), given.norms.tolist()])
    assert math.isnan(seen[0][0]) or seen[0] == seen[1], what


for dtype in (torch.float32, torch.float64):
    for split in (sharded, parallel):
        model, whole = split(build(dtype)), build(dtype)
        backward(model, dtype)
        backward(whole, dtype)
        compare(model, whole, split.__name__)

        told = GradientHealthMonitor(max_norm=0.5).check_gradients(model)
        alone = GradientHealthMonitor(max_norm=0.5).check_gradients(whole)
        assert all(abs(told[key] - alone[key]) <= 1e-5 * max(1, abs(alone[key])) for key in alone), (told, alone)
        for p, q in zip(model.parameters(), whole.parameters()):
            part = p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
            torch.testing.assert_close(part, q.grad, rtol=1e-5, atol=1e-6)

        for bad in (math.inf, math.nan):  # on one rank only
            if distributed.get_rank() == 1:
                model[0].weight.grad.to_local()[-1, 0] = bad
            whole[0].weight.grad[-1, 0] = bad
            compare(model, whole, bad)

size = 1e200
both = [nn.Parameter(torch.zeros(4, 3, dtype=torch.float64)) for _ in range(2)]
both[0].grad = torch.full((4, 3), size, dtype=torch.float64)
both[1] = nn.Parameter(distribute_tensor(both[1].detach(), mesh, [Shard(0)]))
both[1].grad = distribute_tensor(both[0].grad, mesh, [Shard(0)])
norms = [measure([p]).norm for p in both]
torch.testing.assert_close(*norms, rtol=1e-12, atol=0)

square = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "tensor"))
torch.manual_seed(2)
gradient = torch.randn(4, 6)
for placements in ((Shard(0), Shard(1)), (Replicate(), Shard(0)), (Shard(1), Replicate())):
    owner = nn.Parameter(distribute_tensor(torch.zeros(4, 6), square, placements))
    owner.grad = distribute_tensor(gradient, square, placements)
    plain = nn.Parameter(torch.zeros(4, 6))
    plain.grad = gradient
    mixed = measure([owner, plain], statistics=True)  # two ways of being laid out in one measurement
    torch.testing.assert_close(mixed.norms, gradient.norm().expand(2), rtol=1e-6, atol=0)
    torch.testing.assert_close(mixed.statistics.max, gradient.max().double())
    torch.testing.assert_close(mixed.statistics.std, torch.cat([gradient, gradient]).double().std(correction=0))

owner = nn.Parameter(distribute_tensor(torch.zeros(4, 6), mesh, [Shard(0)]))
owner.grad = DTensor.from_local(gradient / 2, mesh, [Partial()])
torch.testing.assert_close(measure([owner]).norm, gradient.double().norm())
assert owner.grad.placements == (Shard(0),)
torch.testing.assert_close(owner.grad.full_tensor(), gradient)

distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""


def test_two_ranks_measure_what_one_process_does(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)

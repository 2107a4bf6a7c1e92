"""Two ranks that each hold a part of the gradients clip them as one process does, whatever way they are cut."""

from __future__ import annotations

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

SCRIPT = """
import os

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from ava.optimization import get_clip, list_clips

distributed.init_process_group("gloo")
line, plane = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (2, 1), mesh_dim_names=("rows", "columns"))
across, slanted = init_device_mesh("cpu", (1, 2), mesh_dim_names=("one", "two")), [Shard(0), Shard(1)]
LAYOUTS = [
    ((4, 6), line, [Shard(0)]), ((4, 6), line, [Shard(1)]), ((6,), line, [Shard(0)]), ((5, 3, 2), line, [Shard(0)]),
    ((1, 3), line, [Shard(0)]), ((4, 6), line, [Replicate()]), ((3, 2), line, [Partial()]), ((4, 6), plane, slanted),
    ((4, 6), across, slanted), ((5,), across, [Replicate(), Shard(0)]), ((3, 5), None, None), ((), None, None),
]

def weights():
    torch.manual_seed(0)
    return [torch.randn(shape) for shape, _, _ in LAYOUTS]

def sharded(weight, mesh, placements):
    if mesh is None:
        return nn.Parameter(weight)
    return nn.Parameter(distribute_tensor(weight, mesh, [Replicate() if p.is_partial() else p for p in placements]))

def cut(gradient, mesh, placements):
    if mesh is None:
        return gradient.clone()
    if placements[0].is_partial():  # the ranks' summands
        part = gradient * (0.25 if distributed.get_rank() == 0 else 0.75)
        return DTensor.from_local(part, mesh, placements)
    return distribute_tensor(gradient.clone(), mesh, placements)

for name in list_clips():
    whole = [nn.Parameter(weight) for weight in weights()]
    shards = [sharded(w, mesh, placements) for w, (_, mesh, placements) in zip(weights(), LAYOUTS)]
    one, many = get_clip(name), get_clip(name)
    for step in range(32):
        scale = 30.0 if step in (27, 31) else 1.0 + 0.03 * (step % 5)
        for p, q, (_, mesh, placements) in zip(whole, shards, LAYOUTS):
            p.grad = scale * torch.randn(p.shape, generator=torch.Generator().manual_seed(step))
            q.grad = cut(p.grad, mesh, placements)
        torch.testing.assert_close(many(shards), one(whole), rtol=1e-6, atol=0)
        for p, q in zip(whole, shards):
            found = q.grad.full_tensor() if hasattr(q.grad, "full_tensor") else q.grad
            torch.testing.assert_close(found, p.grad, rtol=1e-5, atol=1e-7, msg=lambda m: f"{name}: {m}")
    for key, value in many.state_dict().items():  # the ranks remember, and so decide, the same
        everyones = [torch.empty_like(value) for _ in range(2)]
        distributed.all_gather(everyones, value)
        assert torch.equal(*everyones), (name, key)
distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""


def test_shards_are_clipped_as_one_process_clips(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)

"""Sharded parameters (DTensor, as FSDP2 makes them) are updated like whole ones."""

from __future__ import annotations

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from ava.optimization import get_optimizer, list_optimizers
from tests.optimization.optimizers.oracles import parameters, set_gradients


@pytest.fixture(scope="module")
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", list_optimizers())
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_shards_train_like_the_whole(name, engine, mesh):
    whole = parameters()
    shards = [torch.nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in whole]
    one, other = (get_optimizer(name)(params, engine=engine) for params in (whole, shards))
    for step in range(4):
        set_gradients(whole, step)
        for p, q in zip(whole, shards, strict=True):
            q.grad = distribute_tensor(p.grad.clone(), mesh, [Shard(0)])
        one.step()
        other.step()
    other.found_inf = torch.tensor(1.0)
    other.step()
    for p, q in zip(whole, shards, strict=True):
        torch.testing.assert_close(q.full_tensor(), p, rtol=0, atol=1e-14)
        slots = [value for key, value in other.state[q].items() if key != "step"]
        assert slots
        assert all(isinstance(value, DTensor) for value in slots)

"""SAM's norm is over all shards: two ranks that each hold half of the weights move them as one process does."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

SCRIPT = """
import os

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters

distributed.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
for adaptive in (False, True):
    whole = parameters()
    shards = [nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in whole[:2]]
    shards.append(nn.Parameter(whole[2].detach().clone()))  # one is not sharded
    for params in (whole, shards):
        optimizer = get_optimizer("sgd")(params, lr=0.05, sam_rho=0.5, sam_adaptive=adaptive, engine="reference")
        for _ in range(3):
            def closure():
                for p in params:
                    p.grad = (p.detach() + 0.3 * p.detach() ** 2).clone()
                return 0.0
            optimizer.step(closure)
    for p, q in zip(whole, shards):
        q = q.full_tensor() if hasattr(q, "full_tensor") else q
        torch.testing.assert_close(q, p, rtol=1e-12, atol=1e-12)
distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""


def test_the_norm_is_over_all_shards(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)

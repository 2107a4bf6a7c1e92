"""With DistributedDataParallel all ranks decide alike and end with the same gradient; sharded models are refused."""

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from ava.errors import InputError
from ava.optimization import AdaptiveGradientSurgeon
from tests.distributed.two_ranks import run_on_two_ranks
from tests.optimization.gradients.surgery.test_adaptive import Network, make

SCRIPT = """
import os
import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from ava.optimization import AdaptiveGradientSurgeon
from tests.optimization.gradients.surgery.test_adaptive import Network

distributed.init_process_group("gloo")
rank = distributed.get_rank()

def losses(model, rows):
    torch.manual_seed(7)
    x, wanted = torch.randn(8, 5)[rows], [torch.randn(8, 5)[rows] for _ in range(3)]
    return [functional.mse_loss(o, y) for o, y in zip(model(x), wanted)]

for method in ("mgda", "graddrop"):
    for auto_detect in (True, False):
        torch.manual_seed(0)
        network = Network()
        del network.unused
        alone = AdaptiveGradientSurgeon(0.999, method, auto_detect, calibrate_every=2)
        together = AdaptiveGradientSurgeon(0.999, method, auto_detect, calibrate_every=2)
        model = DistributedDataParallel(network)
        for step in range(4):
            alone.process_losses(network, losses(network, slice(None))).backward()
            expected = [p.grad.clone() for p in network.parameters()]
            network.zero_grad()
            together.process_losses(model, losses(model, slice(4 * rank, 4 * rank + 4))).backward()
            for p, wanted in zip(network.parameters(), expected):
                torch.testing.assert_close(p.grad, wanted, rtol=1e-3, atol=1e-5)
                others = [torch.empty_like(p.grad) for _ in range(2)]
                distributed.all_gather(others, p.grad)
                assert torch.equal(others[0], others[1])
            network.zero_grad()
        assert alone.get_stats()["num_exact"] == together.get_stats()["num_exact"] > 0
distributed.barrier()
os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
"""


@pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port
@pytest.mark.slow
def test_two_ranks_are_one(tmp_path):
    run_on_two_ranks(SCRIPT, tmp_path)


@pytest.fixture
def alone():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_what_hides_the_heads_is_refused(alone):
    model = DistributedDataParallel(Network(), find_unused_parameters=True)
    with pytest.raises(InputError, match="find_unused_parameters"):
        AdaptiveGradientSurgeon().process_losses(model, make()[1]())


def test_sharded_parameters_are_refused(alone):
    model = fully_shard(nn.Linear(2, 2), mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(InputError, match="sharded"):
        AdaptiveGradientSurgeon().process_losses(model, [model(torch.ones(1, 2)).sum()])

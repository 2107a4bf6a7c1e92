"""AGMOHD on two ranks: they decide alike though their losses differ, under DDP and under FSDP2."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

SETTING = """
import torch
from torch import distributed, nn
from ava.optimization import AGMOHD

distributed.init_process_group("gloo")
rank = distributed.get_rank()

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))

def batch(step):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(step))
    return x, torch.tanh(x[:, :2] - x[:, 2:4])

def train(model, optimizer, steps, rows, spoil=(), is_loss_spoilt=False):
    for step in range(steps):
        optimizer.zero_grad()
        x, y = batch(step)
        loss = (model(x[rows]) - y[rows]).square().mean()
        factor = 1e4 if step in spoil else 1.0
        (loss * factor).backward()
        # Only one rank sees the spike of the loss.
        optimizer.observe(loss * (1e4 if is_loss_spoilt and step == 45 and rank == 0 else 1.0))
        optimizer.step()

def gathered(tensor):
    parts = [torch.empty_like(tensor) for _ in range(2)]
    distributed.all_gather(parts, tensor.contiguous())
    return parts

def assert_alike(values):
    flat = torch.tensor(values, dtype=torch.float64)
    first, second = gathered(flat)
    assert torch.equal(first.nan_to_num(-1.0), second.nan_to_num(-1.0)), (first, second)

def numbers(optimizer):
    stats = optimizer.get_training_stats()
    return [*stats.pop("causes").values(), *stats.values(), *optimizer.pilot.detector.memory.tolist()]

own = slice(8 * rank, 8 * rank + 8)
"""

DDP = """
from torch.nn.parallel import DistributedDataParallel

model = DistributedDataParallel(network())
optimizer = AGMOHD(model.parameters(), lr=3e-3, responses=("slow", "shrink", "skip"))
train(model, optimizer, 60, own, spoil=(40,), is_loss_spoilt=True)
stats = optimizer.get_training_stats()
assert stats["clipped_steps"] >= 1 and stats["skipped_steps"] >= 1 and stats["momentum"] < 0.9, stats
for p in model.parameters():
    assert torch.equal(*gathered(p.detach()))
assert_alike(numbers(optimizer))
"""

FSDP = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

model, whole = network(), network()
fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
optimizer, one = (AGMOHD(m.parameters(), lr=3e-3) for m in (model, whole))
train(model, optimizer, 60, own, spoil=(40,))
assert_alike(numbers(optimizer))

distributed.destroy_process_group()
train(whole, one, 60, slice(0, 16), spoil=(40,))
expected, found = one.get_training_stats(), optimizer.get_training_stats()
assert found["clipped_steps"] == expected["clipped_steps"] == 1
for key in ("gradient_norm", "update_norm", "loss", "momentum"):
    assert abs(found[key] / expected[key] - 1) < 1e-2, (key, found[key], expected[key])
for p, q in zip(model.parameters(), whole.parameters(), strict=True):
    rows = q.detach().chunk(2)[rank]
    torch.testing.assert_close(p.to_local(), rows, rtol=1e-2, atol=1e-3)
"""


@pytest.mark.parametrize("script", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_ranks_decide_alike(tmp_path, script):
    run_on_two_ranks(SETTING + script, tmp_path)

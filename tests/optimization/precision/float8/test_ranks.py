"""Two ranks: one scale for both under DDP, and weights exchanged in 8 bits under FSDP2."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks
from tests.optimization.precision.float8.trainings import needs_torchao

pytestmark = pytest.mark.xdist_group("ranks")

START = """
import os, torch, torch.distributed as dist
from torch import nn
from ava.optimization.precision.float8.training import prepare_float8
from tests.optimization.precision.float8.trainings import CPU, MLP

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model = MLP()
"""

SCALES = (
    START
    + """
from torch.nn.parallel import DistributedDataParallel

def max_over_ranks(tensor):
    tensor = tensor.clone()
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor

prepared = prepare_float8(model, device=CPU, recipe="delayed", emulate=True, max_over_ranks=max_over_ranks)
network = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(3):
    torch.manual_seed(10 * step + rank)
    optimizer.zero_grad()
    network((1 + rank) * torch.randn(8, 32)).square().mean().backward()
    optimizer.step()
    prepared.step()
    for tensor in (prepared.scaling.scale, prepared.scaling.history, model.up.weight.detach()):
        both = [torch.empty_like(tensor) for _ in range(2)]
        dist.all_gather(both, tensor.contiguous())
        assert torch.equal(*both)
assert prepared.scaling.scale.all()
dist.barrier()
os._exit(0)  # gloo's threads may end after the interpreter
"""
)

SHARDED = (
    START
    + """
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

plain = MLP()
plain.load_state_dict(model.state_dict())
prepared = prepare_float8(model, device=CPU, emulate=True, **OPTIONS)
for layer in (model.up, model.down, model):
    fully_shard(layer)
twins = [torch.optim.SGD(m.parameters(), lr=0.1) for m in (model, plain)]
for step in range(5):
    torch.manual_seed(step)
    x = torch.randn(16, 32)
    for m, optimizer in zip((model, plain), twins):
        optimizer.zero_grad()
        m(x).square().mean().backward()
        optimizer.step()
    prepared.step()
state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
if rank == 0:
    fresh = MLP()
    fresh.load_state_dict(state)
    assert all(type(value) is torch.Tensor for value in state.values()), {k: type(v) for k, v in state.items()}
    for name, want in plain.state_dict().items():
        assert (fresh.state_dict()[name] - want).norm() < 0.05 * want.norm(), name
dist.barrier()
os._exit(0)  # gloo's threads may end after the interpreter
"""
)


@pytest.mark.slow
def test_ranks_share_their_scales(tmp_path):
    run_on_two_ranks(SCALES, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"recipe": "tensorwise", "float8_all_gather": True}, marks=needs_torchao),
        pytest.param({"recipe": "rowwise"}, marks=needs_torchao),
        {"recipe": "delayed"},
    ],
    ids=["all-gather", "rowwise", "delayed"],
)
def test_sharded_weights_train_as_whole_ones(tmp_path, options):
    run_on_two_ranks(f"OPTIONS = {options}\n" + SHARDED, tmp_path)

"""Loss scales over ranks: an overflow of one is an overflow of all."""

from __future__ import annotations

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")

DDP = """
import itertools
import torch
import torch.distributed as dist
from ava.distributed.world import join
from ava.training.step import training_step
from tests.training.helpers import small_run

with join("cpu") as world:
    run, _ = small_run("precision=fp16", "precision.init_scale=64", "model=mlp", "trainer.accumulate=2", world=world)
    spoiled = run.parameters[0].register_hook(
        lambda g: torch.full_like(g, float("inf")) if world.rank == 1 and run.step == 2 else g
    )
    scales = []
    for window in itertools.islice(run.loader.windows(run.position), 5):
        before = torch.cat([p.detach().flatten() for p in run.parameters]).clone()
        report = training_step(run, window)
        after = torch.cat([p.detach().flatten() for p in run.parameters])
        scales.append(float(run.policy.scale))
        assert torch.equal(before, after) == (run.step == 3), run.step
    assert scales == [64, 64, 32, 32, 32], scales
    everyone = [torch.empty_like(after) for _ in range(2)]
    dist.all_gather(everyone, after)
    assert torch.equal(*everyone)
"""

FSDP = """
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from ava.distributed.world import join
from ava.optimization import Policy, get_optimizer
from ava.optimization.gradients.health.measure import measure

with join("cpu") as world:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3))
    twin = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 3))
    twin.load_state_dict(model.state_dict())
    fully_shard(model)
    x = torch.randn(4, 8)
    policy = Policy("fp16", "cpu", init_scale=256.0)
    optimizer = get_optimizer("adamw")(model.parameters(), lr=0.01)
    for step in range(3):
        with policy.autocast():
            loss = model(x).float().square().mean()
        if step == 1 and world.rank == 1:
            loss = loss * float("inf")
        (loss * policy.scale).backward()
        parameters = list(model.parameters())
        policy.unscale_(parameters)
        found = measure(parameters)
        if step == 0:
            with policy.autocast():
                twin(x).float().square().mean().backward()
            exact = torch.cat([p.grad.flatten() for p in twin.parameters()]).norm()
            assert abs(float(found.norm) / float(exact) - 1) < 0.01, (found.norm, exact)
        before = [p.full_tensor().clone() for p in parameters]
        optimizer.found_inf = found.found_inf
        optimizer.step()
        optimizer.zero_grad()
        policy.update(found.found_inf, found.found_inf)
        same = all(torch.equal(a, p.full_tensor()) for a, p in zip(before, parameters))
        assert same == (step == 1), step
    assert float(policy.scale) == 128.0
"""


@pytest.mark.parametrize("script", [DDP, FSDP], ids=["ddp", "fsdp2"])
def test_all_ranks_back_off_together(script, tmp_path):
    run_on_two_ranks(script, tmp_path)

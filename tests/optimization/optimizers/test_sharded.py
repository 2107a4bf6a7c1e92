"""Sharded parameters (DTensor, as FSDP2 makes them) are updated like whole ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ava import registry
from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.batches import batches
from ava.optimization.optimizers.engines.native import engine as native
from tests.optimization.optimizers.oracles import parameters, set_gradients

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port


@pytest.fixture(scope="module")
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", list_optimizers())
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_one_shard_trains_like_the_whole(name, engine, mesh):
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
        torch.testing.assert_close(q.full_tensor(), p, rtol=0, atol=1e-12)
        assert other.state[q].keys() == one.state[p].keys()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What two ranks told: one launch for all cases, because starting costs more than they do."""
    path = tmp_path_factory.mktemp("ranks") / "results.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["tests.optimization.optimizers.sharded_ranks", str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(path.read_text())


def differs_by_design(case):
    """Shards are factored, and drawn for, by themselves.

    SOAP's first basis is arbitrary where a matrix has fewer rows than columns or the reverse: the rounding of a sum
    over ranks chooses another.
    """
    options = case["options"]
    state = options.get("state", registry.optimizer[case["name"]].parameters["state"][1])
    is_soap = case["name"] == "soap" and "orthograd" in options
    return state != "dense" or "noise" in options or "stochastic_rounding" in options or is_soap


@pytest.mark.parametrize("name", list_optimizers())
def test_two_ranks_train_like_one(name, results):
    cases = [case for case in results["cases"] if case["name"] == name]
    assert sum("refused" in case for case in cases) <= 1
    for case in cases:
        assert "error" not in case, case["error"]
        if "refused" in case:
            assert case["options"], case
            continue
        assert case["finite"], case
        assert case["moved"], case
        assert case["moments_are_sharded"] or case["options"].get("state") == "int8", case
        assert differs_by_design(case) or case["difference"] < 1e-12, case


def test_ranks_draw_numbers_of_their_own(results):
    """The noise of one half is not that of the other; replicas stay the same."""
    first, second = results["draws"]["halves"]
    assert first != second
    assert all(number != 0 for row in first + second for number in row)
    same, as_well = results["draws"]["replicas"]
    assert same == as_well
    assert same[:2] == first


def test_sums_over_all_parameters_are_whole_where_some_are_replicated(results):
    for name, ranks in results["mixed"].items():
        assert ranks[0] == ranks[1], name
        mixed, whole = ranks[0]
        assert mixed == pytest.approx(whole, rel=1e-9), name


@pytest.mark.parametrize(("name", "fits"), [("adamw", True), ("agmohd", True), ("prodigy", True), ("lamb", False)])
def test_what_sums_over_all_parameters_runs_as_a_kernel_on_shards(name, fits, mesh):
    """What sums over each parameter cannot, for the sum would have to be known within a pass."""
    shard = torch.nn.Parameter(distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)]))
    optimizer = get_optimizer(name)([shard])
    shard.grad = distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])
    group = optimizer.param_groups[0]
    pieces = batches(optimizer._grammar, group, optimizer.state, {shard: 0}, lambda device: (None, None))
    assert [native.fits(batch) for batch in pieces] == [fits]

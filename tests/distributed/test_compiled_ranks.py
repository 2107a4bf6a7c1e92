"""Compiled losses under DistributedDataParallel: two ranks train what one plain process trains."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")

SCRIPT = """
import dataclasses, itertools
import pytest, torch
from torch.nn.parallel import DistributedDataParallel
from ava.data.loader import Position, TrainingLoader
from ava.distributed.world import join
from ava.training.compiling import compile_losses
from ava.training.step import training_step
from tests.training.helpers import small_run, weights
from tests.training.test_compiling import Few

def trained(world, is_compiled):
    run, _ = small_run("model=mlp", "model.width=16", "optimizer=sgd", "trainer.accumulate=2", *{overrides})
    run.world = world
    run.loader = TrainingLoader(
        Few(run.loader.split, 21), batch_size=8, accumulate=2, rank=world.rank, world_size=world.size
    )
    if is_compiled:
        network, run.compilation = compile_losses(run, backend="aot_eager")
        run.network = DistributedDataParallel(network)
    run.network.train()
    for window in itertools.islice(run.loader.windows(Position()), 6):
        training_step(run, window)
    if is_compiled:
        assert run.compilation.recompiles == 0, run.compilation
        assert not any("_orig_mod" in name for name in run.model.state_dict())
        assert run.is_compiled
    return weights(run)

with join("cpu", 60) as world:
    together = trained(world, True)
    alone = trained(dataclasses.replace(world, rank=0, size=1), False)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
"""


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="plain"),
        pytest.param(["trainer.activation_checkpointing=true"], id="checkpointing", marks=pytest.mark.slow),
        pytest.param(["optimizer.sam_rho=0.05"], id="sam", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_equal_one(tmp_path, overrides):
    run_on_two_ranks(SCRIPT.replace("{overrides}", repr(overrides)), tmp_path)

"""Activation checkpointing and the batch-size finder on two ranks."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")

CHECKPOINTED = """
import torch
from torch.nn.parallel import DistributedDataParallel
from ava.distributed.world import join
from ava.training.memory_saving import checkpoint_activations
from ava.training.step import training_step
from tests.training.helpers import small_run, weights
from tests.training.test_memory_saving import GPT_SMALL

with join("cpu", 60) as world:
    def trained(how):
        run, _ = small_run(*GPT_SMALL, "model.dropout=0.1", "trainer.accumulate=2", world=world)
        checkpoint_activations(run.model, how)
        run.network = DistributedDataParallel(run.model)
        torch.manual_seed(world.rank)
        run.network.train()
        for window, _ in zip(run.loader.windows(run.position), range(2)):
            training_step(run, window)
        return weights(run)

    expected = trained(False)
    for how in (True, 2, "selective"):
        assert torch.equal(trained(how), expected), how
"""

SEARCHED = """
import torch
from ava.distributed.world import join
from ava.errors import InputError
from ava.training.batch_size import find_accumulate, find_batch_size
from ava.training.step import training_step
from tests.training.helpers import small_run, weights


with join("cpu", 60) as world:
    run, _ = small_run("model.width=4", "data.augment=false", "trainer.batch_size=40", world=world)
    most = 7 if world.rank else 11
    def full(module, inputs):
        if len(inputs[0]) > most:
            raise MemoryError
    handle = run.model.register_forward_pre_hook(full)
    before = weights(run)
    found = find_batch_size(run, 2**50)
    assert (found.batch_size, found.micro_batch, found.ranks) == (14, 7, 2), found
    assert find_accumulate(run, 2**50) == 3
    assert torch.equal(weights(run), before)
    most = 0 if world.rank else 11
    try:
        find_batch_size(run, 2**50)
        raise AssertionError
    except InputError as error:
        assert "not even a batch of one sample fits" in str(error)
    handle.remove()
    run.network.train()
    training_step(run, next(run.loader.windows(run.position)))
"""


@pytest.mark.parametrize("script", [CHECKPOINTED, SEARCHED], ids=["checkpointing", "batch size"])
def test_on_two_ranks(tmp_path, script):
    run_on_two_ranks(script, tmp_path)

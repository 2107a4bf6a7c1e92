"""The stand-in for CUDA graphs computes again on the same tensors: a step depends on nothing else."""

import functools
import itertools

import pytest
import torch

from ava.data.loader import Position
from ava.errors import InputError
from ava.training.graphs import MOST_RECORDINGS, GraphedBackward, Rerun, check_recordable
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

GPT = ["task=stdlib_lm", "model.preset=null", "model.width=16", "model.layers=1", "model.heads=2", "data.context=8"]


def graphed(run):
    """The run with recorded passes."""

    def losses(batch):
        with run.policy.autocast():
            return run.task.losses(run.network, batch)

    run.graphs = GraphedBackward(losses, run.model, run.world.device, Rerun())
    return run


def trained(is_graphed, *overrides, steps=32):
    run, _ = small_run(*overrides)
    run.network.train()
    torch.manual_seed(1)
    run = graphed(run) if is_graphed else run
    reports = [training_step(run, w) for w in itertools.islice(run.loader.windows(Position()), steps)]
    return weights(run), torch.stack([report.losses["loss"] for report in reports]), run


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=adamw", "scheduler=onecycle"],
        ["optimizer=sgd", "trainer.accumulate=3"],
        ["optimizer=adamw", "trainer.accumulate=2", "trainer.ema_decay=0.9", "trainer.clip_norm=0.1"],
        ["optimizer=sgd", "optimizer.sam_rho=0.05", "trainer.accumulate=2"],
        ["model=mlp", "precision=bf16"],
        ["model=mlp", "precision=fp16", "trainer.accumulate=2"],
        ["model=mlp", "health.detail_every=4"],
        [*GPT, "model.dropout=0.2", "trainer.accumulate=2"],
    ],
    ids=["plain", "accumulate", "ema-clip", "sam", "bf16", "fp16", "detail", "dropout"],
)
def test_training_is_the_same_bit_for_bit(overrides):
    """Past the epoch's last window, which is smaller: 898 samples in windows of 32 leave 2."""
    plain, recorded = trained(False, "model.width=8", *overrides), trained(True, "model.width=8", *overrides)
    assert torch.equal(recorded[0], plain[0])
    assert torch.equal(recorded[1], plain[1])


def test_batch_norm_counts_a_batch_once():
    overrides = ["model=resnet", "model.width=8", "model.norm=batch"]
    plain, recorded = trained(False, *overrides, steps=3), trained(True, *overrides, steps=3)
    for mine, theirs in zip(recorded[2].model.buffers(), plain[2].model.buffers(), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(recorded[0], plain[0])


class Linear(torch.nn.Module):
    """One layer that is used, and one that is not."""

    def __init__(self):
        super().__init__()
        self.used, self.idle = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)


def backward_of(model, capture=None):
    def losses(batch):
        return {"loss": model.used(batch["inputs"]).square().sum()}

    return GraphedBackward(losses, model, torch.device("cpu"), capture or Rerun())


def gradient_by_hand(model, *inputs):
    total = sum(model.used(x).square().sum() for x in inputs)
    return torch.autograd.grad(total, list(model.used.parameters()))


class Counting(Rerun):
    """Counts how often something is recorded and replayed."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def record(self, body):
        self.recorded += 1
        results, replay = super().record(body)

        def counted():
            self.replayed += 1
            replay()

        return results, counted


def test_each_size_is_recorded_once_and_the_rest_computed():
    torch.manual_seed(0)
    model, counting = Linear(), Counting()
    passes = backward_of(model, counting)
    batches = [torch.randn(size, 3) for size in (4, 2, 4, 3, 1, 5, 5)]
    passes.zero_grad()
    with pytest.warns(RuntimeWarning, match="4 sizes of micro-batch") as told:
        _ = [passes({"inputs": batch}, 1.0) for batch in batches]
    assert len(told) == 1
    assert (counting.recorded, counting.replayed) == (MOST_RECORDINGS, 5)
    for mine, expected in zip(model.used.parameters(), gradient_by_hand(model, *batches), strict=True):
        torch.testing.assert_close(mine.grad, expected)


def test_a_parameter_without_a_gradient_stays_without():
    model = Linear()
    passes = backward_of(model)
    for _ in range(2):
        passes.zero_grad()
        passes({"inputs": torch.ones(2, 3)}, 0.5)
    assert all(p.grad is None for p in model.idle.parameters())
    assert all(p.grad is not None for p in model.used.parameters())


def test_the_weight_may_be_a_tensor():
    model = Linear()
    passes = backward_of(model)
    passes.zero_grad()
    passes({"inputs": torch.ones(2, 3)}, torch.tensor(0.25))
    for mine, expected in zip(model.used.parameters(), gradient_by_hand(model, torch.ones(2, 3)), strict=True):
        torch.testing.assert_close(mine.grad, 0.25 * expected)


def test_weights_that_moved_are_recorded_anew():
    model, counting = Linear(), Counting()
    passes = backward_of(model, counting)
    for _ in range(2):
        passes.zero_grad()
        passes({"inputs": torch.ones(2, 3)}, 1.0)
    model.used.weight.data = model.used.weight.detach() + 1.0
    passes.zero_grad()
    passes({"inputs": torch.ones(2, 3)}, 1.0)
    assert counting.recorded == 2
    torch.testing.assert_close(model.used.weight.grad, gradient_by_hand(model, torch.ones(2, 3))[0])


def test_results_outlive_the_next_replay():
    model = Linear()
    passes = backward_of(model)
    passes.zero_grad()
    first = passes({"inputs": torch.ones(2, 3)}, 1.0)["loss"]
    before = first.clone()
    passes({"inputs": torch.zeros(2, 3)}, 1.0)
    assert torch.equal(first, before)


def test_a_cpu_is_refused():
    run, _ = small_run("model=mlp")
    with pytest.raises(InputError, match=r"trainer.cuda_graphs=true: needs a GPU.*cuda_graphs=false"):
        check_recordable(run)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_cuda_graphs_equal_plain_steps():
    from ava.distributed.world import World

    world = World(0, 1, torch.device("cuda", 0))
    results = []
    for is_graphed in (False, True):
        run, _ = small_run("model=mlp", "trainer.accumulate=2", world=world)
        run.network.train()
        if is_graphed:
            run.graphs = GraphedBackward(functools.partial(run.task.losses, run.network), run.model, world.device)
        for window in itertools.islice(run.loader.windows(Position()), 32):
            training_step(run, window)
        results.append(weights(run))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)

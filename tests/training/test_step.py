import copy
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ava.data.loader import Position, Window
from ava.training.step import training_step
from tests.training.helpers import small_run, weights


def after(steps: int, *overrides: str) -> torch.Tensor:
    run, _ = small_run(*overrides)
    run.network.train()
    for window in itertools.islice(run.loader.windows(Position()), steps):
        training_step(run, window)
    return weights(run)


@pytest.mark.parametrize("accumulate", [2, 3, 5, 32])
def test_accumulation_equals_the_full_batch(accumulate):
    """Also over the epoch's last, smaller window: 898 samples are 28 windows of 32 and one of 2."""
    whole = after(31, "optimizer=sgd", "optimizer.lr=0.01")
    parts = after(31, "optimizer=sgd", "optimizer.lr=0.01", f"trainer.accumulate={accumulate}")
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)


def test_micro_batches_weigh_what_they_count():
    """A language model's loss averages over valid tokens, not over micro-batches."""
    run, _ = small_run("task=stdlib_lm", "model.preset=null", "model.width=16", "model.layers=1", "model.heads=2",
                       "data.context=8", "scheduler=constant", "optimizer=sgd", "trainer.clip=none")  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (4, 8), generator=generator)
    targets = torch.randint(0, 256, (4, 8), generator=generator)
    targets[0, 1:] = -100
    targets[1, :7] = -100
    before = {name: p.clone() for name, p in run.model.state_dict().items()}

    def gradients(cuts):
        run.model.load_state_dict(before)
        batches = [{"inputs": inputs[a:b], "targets": targets[a:b]} for a, b in cuts]
        report = training_step(run, Window(batches, True, 4, Position()))
        return torch.cat([p.grad.flatten() for p in run.model.parameters()]), report.losses["loss"]

    whole, loss = gradients([(0, 4)])
    parts, loss_of_parts = gradients([(0, 1), (1, 2), (2, 4)])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss_of_parts, loss)


class _HostReads(TorchDispatchMode):
    """Counts how often the host asks for the value of a tensor that was computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.computed, self.count = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += args[0].data_ptr() in {tensor.data_ptr() for tensor in self.computed}
        result = func(*args, **(kwargs or {}))
        self.computed += [t for t in torch.utils._pytree.tree_leaves(result) if isinstance(t, torch.Tensor)]
        return result


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
def test_a_step_never_waits_for_the_device(optimizer):
    run, _ = small_run(f"optimizer={optimizer}", "scheduler=onecycle", "trainer.ema_decay=0.9", "trainer.accumulate=2")
    windows = list(itertools.islice(run.loader.windows(Position()), 4))
    training_step(run, windows[0])
    with _HostReads() as reads:
        for window in windows[1:]:
            training_step(run, window)
    assert reads.count == 0


def test_host_reads_are_seen():
    with _HostReads() as reads:
        bool(torch.ones(()) + 1 > 0)
    assert reads.count == 1


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
def test_a_gradient_that_is_not_finite_changes_nothing(optimizer):
    run, _ = small_run(f"optimizer={optimizer}")
    windows = list(itertools.islice(run.loader.windows(Position()), 2))
    training_step(run, windows[0])
    before, state = weights(run), copy.deepcopy(run.optimizer.state_dict()["state"])
    windows[1].batches[0]["inputs"][0, 0, 0, 0] = float("nan")
    report = training_step(run, windows[1])
    assert not torch.isfinite(report.health.norm)
    assert torch.equal(weights(run), before)
    for index, slots in run.optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            assert torch.equal(value, state[index][name]), name


def test_report_gives_the_rate_that_was_used():
    run, _ = small_run("scheduler=linear", "optimizer.lr=0.01")
    windows = run.loader.windows(Position())
    first, second = training_step(run, next(windows)), training_step(run, next(windows))
    assert first.lr == pytest.approx(0.01)
    assert second.lr < first.lr
    assert (first.step, second.step) == (1, 2)


def test_ema_follows_the_weights():
    run, _ = small_run("trainer.ema_decay=0.5")
    start = weights(run)
    training_step(run, next(run.loader.windows(Position())))
    now = weights(run)
    with run.ema.swapped():
        torch.testing.assert_close(weights(run), 0.1 * start + 0.9 * now)  # the first update forgets fast
    assert torch.equal(weights(run), now)


def test_activation_checkpointing_changes_memory_only():
    plain = after(3)
    saved = after(3, "trainer.activation_checkpointing=true")
    torch.testing.assert_close(saved, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("model", ["mlp", "resnet", "vit"])
def test_bf16_and_fp32_learn_alike(model):
    losses = {}
    for precision in ("fp32", "bf16"):
        run, _ = small_run(f"model={model}", f"precision={precision}")
        windows = itertools.islice(run.loader.windows(Position()), 3)
        losses[precision] = [float(training_step(run, window).losses["loss"]) for window in windows]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)

"""What every registered task keeps: sums that add up over any cut of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ava import registry
from ava.data.arrays import ImageArray
from ava.data.digit_pairs import DigitPairs, Layout
from ava.data.sequences import byte_stream, splits
from ava.data.source import Data, ImageSpec, TokenSpec


def small_data(kind: str, name: str = "") -> Data:
    """A few samples of random images, or of text whose last sequence is short; pairs of images where a task asks so."""
    random = torch.Generator().manual_seed(0)
    if name == "digits_multitask":
        train, valid = (
            DigitPairs(torch.rand(12, 1, 8, 8, generator=random), torch.arange(12) % 10, Layout(4, 20.0, 0.2), seed=k)
            for k in range(2)
        )
        return Data(train, valid, ImageSpec(1, 12, 12, 10), "random pairs")
    if kind == "images":
        train, valid = (
            ImageArray(torch.rand(12, 1, 4, 4, generator=random), torch.randint(3, (12,), generator=random))
            for _ in range(2)
        )
        return Data(train, valid, ImageSpec(1, 4, 4, 3), "random images")
    train, valid = splits(byte_stream([b"to be, or not to be: " * 4]), byte_stream([b"that is the question"]), 8, 0)
    return Data(train, valid, TokenSpec(256, 8, "byte"), "a line")


class Constant(torch.nn.Module):
    """Logits that do not depend on the input."""

    def __init__(self, spec, dtype=torch.float32):
        super().__init__()
        self.tokens = isinstance(spec, TokenSpec)
        self.heads = None if self.tokens else spec.heads
        size = spec.vocab_size if self.tokens else max((self.heads or {"": spec.num_classes}).values())
        self.logits = torch.nn.Parameter(torch.linspace(-2, 2, size, dtype=dtype))

    def forward(self, inputs):
        if self.heads:
            return {name: self.logits[:size].expand(len(inputs), -1) for name, size in self.heads.items()}
        shape = inputs.shape if self.tokens else inputs.shape[:1]
        return self.logits.expand(*shape, -1)


@pytest.fixture(params=registry.task.names())
def task(request):
    entry = registry.task[request.param]
    return entry.load()(small_data(entry.tags["kind"], entry.name))


def _whole(task):
    return task.data.valid.fetch(np.arange(len(task.data.valid)), 0)


def test_losses_are_sums_over_what_counts(task):
    model, batch = Constant(task.data.spec), _whole(task)
    whole = task.losses(model, batch)
    parts = [task.data.valid.fetch(np.array([k]), 0) for k in range(len(task.data.valid))]
    for name, loss in whole.items():
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert loss.requires_grad
        torch.testing.assert_close(sum(task.losses(model, part)[name] for part in parts), loss)
    count = task.count(batch)
    assert type(count) is int
    assert sum(task.count(part) for part in parts) == count


def test_losses_are_float32_whatever_the_model_gives(task):
    for dtype in (torch.bfloat16, torch.float64):
        model = Constant(task.data.spec, dtype)
        assert all(loss.dtype == torch.float32 for loss in task.losses(model, _whole(task)).values())


@torch.no_grad()
def test_metrics_add_up_and_contain_the_monitored_one(task):
    model, batch = Constant(task.data.spec), _whole(task)
    whole = task.evaluate(model, batch)
    assert all(value.shape == () for value in whole.values())
    parts = [task.evaluate(model, task.data.valid.fetch(np.array([k]), 0)) for k in range(len(task.data.valid))]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value, rtol=1e-6, atol=0)
    metrics = task.summarise({name: float(value) for name, value in whole.items()})
    assert task.monitor in metrics
    assert task.mode in ("min", "max")
    assert all(name.startswith("eval/") for name in metrics)
    if getattr(task, "label_smoothing", 0.0) == 0.0:  # evaluations do not smooth
        assert metrics["eval/loss"] == pytest.approx(float(sum(task.losses(model, batch).values())) / task.count(batch))


@torch.no_grad()
def test_baselines_are_in_terms_of_the_metrics(task):
    model, batch = Constant(task.data.spec), _whole(task)
    metrics = task.summarise({name: float(value) for name, value in task.evaluate(model, batch).items()})
    baselines = task.baselines()
    assert len(baselines) >= 2
    assert all(baseline.metric in metrics for baseline in baselines)
    assert len({baseline.name for baseline in baselines}) == len(baselines)

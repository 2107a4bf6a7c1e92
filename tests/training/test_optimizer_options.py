"""Options of optimizers that change what a training step does."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from ava.config.notices import notices
from ava.data.loader import Position
from ava.training.evaluation import evaluate
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

SAM = ["optimizer=sgd", "optimizer.lr=0.01", "optimizer.sam_rho=0.05"]


def after(steps, *overrides):
    run, _ = small_run("model=mlp", *overrides)
    run.network.train()
    reports = [training_step(run, w) for w in itertools.islice(run.loader.windows(Position()), steps)]
    return run, reports


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sam_equals_a_plain_loop(precision):
    run, reports = after(20, *SAM, "trainer.clip=none", f"precision={precision}", "scheduler=constant")
    twin, _ = small_run("model=mlp", *SAM, f"precision={precision}", "scheduler=constant")
    tolerance = {"fp32": 1e-4, "bf16": 2e-2}[precision]
    model, buffers = twin.model.train(), [None] * len(twin.parameters)

    def gradient(batch):
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            logits = model(batch["inputs"])
        loss = nn.functional.cross_entropy(logits.float(), batch["targets"], label_smoothing=0.1)
        loss.backward()
        return loss.item()

    for window, report in zip(twin.loader.windows(Position()), reports, strict=False):
        loss = gradient(window.batches[0])
        assert report.losses["loss"].item() * report.weight == pytest.approx(loss, rel=tolerance)
        with torch.no_grad():
            old = [p.clone() for p in twin.parameters]
            norm = torch.cat([p.grad.flatten() for p in twin.parameters]).norm()
            for p in twin.parameters:
                p += 0.05 * p.grad / (norm + 1e-12)
        gradient(window.batches[0])
        with torch.no_grad():
            for i, (p, value) in enumerate(zip(twin.parameters, old, strict=True)):
                buffers[i] = p.grad.clone() if buffers[i] is None else 0.9 * buffers[i] + p.grad
                p.copy_(value - 0.01 * buffers[i])
    torch.testing.assert_close(weights(run), weights(twin), rtol=tolerance, atol=tolerance / 10)


def test_sam_does_not_depend_on_micro_batches():
    whole, _ = after(10, *SAM)
    parts, _ = after(10, *SAM, "trainer.accumulate=4")
    torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-6)
    plain, _ = after(10, *SAM[:2])
    assert not torch.allclose(weights(plain), weights(whole), rtol=1e-3, atol=1e-5)


def test_sam_counts_batch_statistics_once():
    """With a rate of 0 the weights stand still, so the statistics are those of a plain training."""
    runs = [
        small_run("model=resnet", "model.norm=batch", "model.width=4", "scheduler=constant", *options)[0]
        for options in ([], SAM[2:])
    ]
    for run in runs:
        run.network.train()
        for group in run.optimizer.param_groups:
            group["lr"] = 0.0
        training_step(run, next(run.loader.windows(Position())))
    assert any("running_mean" in name for name, _ in runs[0].model.named_buffers())
    for (name, a), b in zip(runs[0].model.named_buffers(), runs[1].model.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_sam_with_a_gradient_that_is_not_finite_changes_nothing_and_is_told():
    run, _ = after(1, *SAM)
    before, state = weights(run), copy.deepcopy(run.optimizer.state_dict()["state"])
    window = next(run.loader.windows(Position()))
    window.batches[0]["inputs"][0, 0, 0, 0] = float("nan")
    report = training_step(run, window)
    assert not report.health.norm.isfinite()
    assert torch.equal(weights(run), before)
    for index, slots in run.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state[index][key]) for key, value in slots.items())


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_fused_backward_equals_the_plain_step(optimizer):
    common = [f"optimizer={optimizer}", "trainer.clip=none"]
    plain, reports = after(5, *common)
    fused, fused_reports = after(5, *common, "optimizer.fused_backward=true")
    torch.testing.assert_close(weights(fused), weights(plain), rtol=1e-6, atol=1e-7)
    assert all(p.grad is None for p in fused.parameters)
    for mine, theirs in zip(fused_reports, reports, strict=True):
        assert mine.health.norm.item() == pytest.approx(theirs.health.norm.item(), rel=1e-5)


def test_fused_backward_skips_and_tells_what_is_not_finite():
    run, _ = after(1, "trainer.clip=none", "optimizer.fused_backward=true")
    before = weights(run)
    windows = list(itertools.islice(run.loader.windows(run.position), 2))
    windows[0].batches[0]["inputs"][:] = float("nan")
    assert not training_step(run, windows[0]).health.norm.isfinite()
    assert torch.equal(weights(run), before)
    assert training_step(run, windows[1]).health.norm.isfinite()
    assert not torch.equal(weights(run), before)


@pytest.mark.parametrize("optimizer", ["schedule_free_adamw", "schedule_free_sgd"])
def test_schedule_free_evaluates_and_saves_its_averages(optimizer):
    overrides = [f"optimizer={optimizer}", "scheduler=constant", "optimizer.lr=0.05"]
    run, _ = after(8, *overrides)
    own = weights(run)
    metrics = evaluate(run)
    assert torch.equal(weights(run), own)

    sections = copy.deepcopy(run.state())
    other, _ = small_run("model=mlp", *overrides)
    other.model.load_state_dict(sections["averaged"])
    assert evaluate(other) == metrics
    other.model.load_state_dict(sections["model"])
    assert evaluate(other) != metrics

    resumed, _ = small_run("model=mlp", *overrides)
    resumed.restore(sections)
    for each in (run, resumed):
        each.network.train()
        for window in itertools.islice(each.loader.windows(each.position), 3):
            training_step(each, window)
    assert torch.equal(weights(run), weights(resumed))
    assert evaluate(run) == evaluate(resumed)


def test_other_optimizers_save_no_second_model():
    run, _ = after(1)
    assert "averaged" not in run.state()


def test_batch_norm_under_averages_is_told_of():
    told = []
    for norm, optimizer in (("batch", "schedule_free_sgd"), ("group", "schedule_free_sgd"), ("batch", "sgd")):
        run, _ = small_run("model=resnet", f"model.norm={norm}", f"optimizer={optimizer}")
        told.append(any("averages of the weights" in line for line in notices(run, None)))
    assert told == [True, False, False]

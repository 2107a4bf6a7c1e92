"""Estimates of the curvature, from the task to the optimizer's state."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ava.data.loader import Position
from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.tasks.sampling import draw
from ava.training import curvature
from ava.training.step import training_step
from tests.optimization.optimizers.oracles import parameters, set_gradients
from tests.training.helpers import small_run, weights

SMALL = ["optimizer=sophia", "optimizer.lr=0.003", "model=mlp", "model.width=8", "scheduler=constant"]


def hessians(run):
    return [run.optimizer.state[p]["hessian"] for p in run.parameters]


def train(run, first, last):
    run.network.train()
    for window in itertools.islice(run.loader.windows(run.position), last - first):
        training_step(run, window)


def logistic_run(estimator):
    """A linear model on the digits: the Hessian of its loss is known, and the Gauss-Newton matrix is the same."""
    run, _ = small_run(*SMALL, f"optimizer.estimator={estimator}", "task.label_smoothing=0", "optimizer.betas=[0,0]")
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False))
    optimizer = get_optimizer("sophia")(linear.parameters(), betas=(0.0, 0.0), estimator=estimator)
    return dataclasses.replace(run, model=linear, network=linear, optimizer=optimizer)


@pytest.mark.parametrize(("estimator", "error"), [("gauss_newton_bartlett", 0.15), ("hutchinson", 0.35)])
def test_the_mean_of_many_estimates_is_the_diagonal_of_the_hessian(estimator, error):
    run = logistic_run(estimator)
    window = next(run.loader.windows(Position()))
    x = torch.cat([batch["inputs"] for batch in window.batches]).flatten(1)
    p = run.model(x).softmax(1).detach()
    expected = torch.einsum("nk,nd->kd", p * (1 - p), x * x) / len(x)
    total = torch.zeros_like(expected)
    for step in range(300):
        run.step = step * 10
        curvature.refresh(run, window)
        total += hessians(run)[0]
    mean = total / 300
    assert (mean - expected).norm() / expected.norm() < error
    assert mean.sum().item() == pytest.approx(expected.sum().item(), rel=0.1)


@pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])
def test_estimates_come_at_the_first_step_and_every_period(estimator):
    run, _ = small_run(*SMALL, f"optimizer.estimator={estimator}", "optimizer.update_period=3")
    changed, before = [], None
    for step, window in zip(range(7), run.loader.windows(Position()), strict=False):
        training_step(run, window)
        now = [h.clone() for h in hessians(run)]
        if before is None or not all(torch.equal(a, b) for a, b in zip(now, before, strict=True)):
            changed.append(step + 1)
        before = now
    assert changed == [1, 4, 7]
    assert any(h.abs().sum() > 0 for h in before)


def test_hutchinson_does_not_depend_on_micro_batches():
    results = []
    for accumulate in (1, 4):
        run, _ = small_run(*SMALL, "optimizer.estimator=hutchinson", f"trainer.accumulate={accumulate}")
        train(run, 0, 3)
        results.append((weights(run), torch.cat([h.flatten() for h in hessians(run)])))
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])
@pytest.mark.parametrize("state", ["dense", "bf16"])
def test_resume_is_bitwise(estimator, state):
    overrides = [*SMALL, f"optimizer.estimator={estimator}", "optimizer.update_period=3", f"optimizer.state={state}"]
    run, _ = small_run(*overrides)
    train(run, 0, 5)
    sections = copy.deepcopy(run.state())
    train(run, 5, 8)
    other, _ = small_run(*overrides)
    other.restore(sections)
    train(other, 5, 8)
    assert torch.equal(weights(run), weights(other))
    assert all(torch.equal(a, b) for a, b in zip(hessians(run), hessians(other), strict=True))


@pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])
def test_an_estimate_that_is_not_finite_changes_nothing(estimator):
    run, _ = small_run(*SMALL, f"optimizer.estimator={estimator}", "optimizer.update_period=1")
    train(run, 0, 1)
    before, own = [h.clone() for h in hessians(run)], weights(run)
    window = next(run.loader.windows(Position()))
    window.batches[0]["inputs"][0, 0, 0, 0] = float("nan")
    training_step(run, window)
    assert all(torch.equal(a, b) for a, b in zip(hessians(run), before, strict=True))
    assert torch.equal(weights(run), own)


@pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])
def test_batch_statistics_and_gradients_are_left_alone(estimator):
    run, _ = small_run(
        *SMALL[:2], "model=resnet", "model.norm=batch", "model.width=4", f"optimizer.estimator={estimator}"
    )
    run.network.train()
    window = next(run.loader.windows(Position()))
    before = {name: b.clone() for name, b in run.model.named_buffers()}
    assert before
    curvature.refresh(run, window)
    assert all(torch.equal(b, before[name]) for name, b in run.model.named_buffers())
    assert all(p.grad is None for p in run.parameters)


@pytest.mark.parametrize("estimator", ["gauss_newton_bartlett", "hutchinson"])
def test_a_language_model_counts_its_targets(estimator):
    run, _ = small_run(
        "task=stdlib_lm", "model.preset=null", "model.width=16", "model.layers=1", "model.heads=2", "data.context=8",
        "optimizer=sophia", f"optimizer.estimator={estimator}", "trainer.activation_checkpointing=true",
    )  # fmt: skip
    window = next(run.loader.windows(Position()))
    window.batches[0]["targets"][1:] = -100
    curvature.refresh(run, window)
    assert all(h.isfinite().all() for h in hessians(run))
    losses = run.task.sampled_losses(run.model, window.batches[0], torch.Generator().manual_seed(0))
    assert losses["loss"].item() == pytest.approx(8 * np.log(256), rel=0.2)


def test_draws_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20000, 3)
    drawn = draw(logits, torch.Generator().manual_seed(0))
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, logits[0].softmax(0), atol=0.02, rtol=0)


def test_a_task_without_sampling_is_refused_with_what_works(monkeypatch):
    from ava.tasks.classification import Classification

    monkeypatch.delattr(Classification, "sampled_losses")
    with pytest.raises(InputError, match=r"optimizer\.estimator=gauss.*Classification.*estimator=hutchinson"):
        small_run(*SMALL)
    small_run(*SMALL, "optimizer.estimator=hutchinson")


def test_a_script_that_never_gives_an_estimate_is_told_once():
    params = parameters()
    optimizer = get_optimizer("sophia")(params, update_period=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(2):
            set_gradients(params, step)
            optimizer.step()
    set_gradients(params, 2)
    with pytest.warns(UserWarning, match="never given an estimate.*take_estimate"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(3, 9):
            set_gradients(params, step)
            optimizer.step()


def test_a_script_gives_estimates():
    params = parameters()
    optimizer = get_optimizer("sophia")(params, betas=(0.9, 0.5), update_period=2)
    for _ in range(2):
        optimizer.take_estimate({p: torch.full_like(p, 2.0) for p in params})
    for p in params:
        assert torch.equal(optimizer.state[p]["hessian"], torch.full_like(p, 1.5))
        assert torch.equal(p.detach(), parameters()[[q is p for q in params].index(True)])
    optimizer.found_inf = torch.tensor(1.0)
    optimizer.take_estimate({params[0]: torch.ones_like(params[0])})
    assert torch.equal(optimizer.state[params[0]]["hessian"], torch.full_like(params[0], 1.5))
    with pytest.raises(InputError, match="shape"):
        optimizer.take_estimate({params[0]: torch.ones(1)})
    with pytest.raises(InputError, match="lion uses no estimates"):
        get_optimizer("lion")(params).take_estimate({params[0]: torch.ones_like(params[0])})


def test_an_estimate_is_no_step():
    """A counter that rounding or another stage keeps goes on by steps alone."""
    params = parameters(torch.float32)
    optimizer = get_optimizer("sophia")(params, state="bf16", lookahead=2)
    for step in range(3):
        optimizer.take_estimate({p: torch.ones_like(p) for p in params})
        set_gradients(params, step)
        optimizer.step()
    assert optimizer.state[params[0]]["step"] == 3

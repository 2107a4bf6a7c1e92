"""The adaptive learning rate: what it does, to what, and how far."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from ava.errors import InputError
from ava.optimization import AdaptiveLearningRateManager, AdaptiveLRConfig
from ava.optimization.learning_rate.factors import Driven
from ava.optimization.learning_rate.schedules.adaptive import Adaptive
from ava.optimization.learning_rate.schedules.plateau import Plateau


def sgd(*rates: float | torch.Tensor | None) -> torch.optim.Optimizer:
    """An optimizer with a group a rate."""
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(2))]} for _ in rates], lr=1.0)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    return optimizer


def lrs(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_a_plateau_lowers_every_group_and_keeps_their_ratios():
    optimizer = sgd(0.1, 0.01)
    manager = AdaptiveLearningRateManager(optimizer, AdaptiveLRConfig(patience=4, cooldown=0, reduction_factor=0.5))
    changes = [manager.step(1.0) for _ in range(5)]
    assert changes[:4] == [None] * 4
    assert (changes[4].cause, changes[4].action, changes[4].step) == ("plateau", "reduce", 5)
    assert (changes[4].before, changes[4].after) == (0.1, 0.05)
    assert lrs(optimizer) == pytest.approx([0.05, 0.005])
    assert manager.get_current_lr() == 0.05
    assert manager.changes == [changes[4]]


def test_steady_improvement_raises_the_rate_up_to_its_limit():
    manager = AdaptiveLearningRateManager(sgd(0.1), max_lr=0.15, patience=3, cooldown=2, increase_factor=1.2)
    changes = [manager.step(torch.tensor(2 * 0.97**i)) for i in range(40)]
    made = [change for change in changes if change is not None]
    assert [change.action for change in made] == ["increase"] * 3
    assert [change.after for change in made] == pytest.approx([0.12, 0.144, 0.15])
    # Three improvements after the first loss; two losses of cooldown, and three improvements again.
    assert [change.step for change in made] == [4, 9, 14]


def test_steady_improvement_is_seen_through_noise():
    noise = 0.02 * np.random.default_rng(0).standard_normal(400)
    manager = AdaptiveLearningRateManager(sgd(0.1), patience=10)
    for i, value in enumerate((2 - np.arange(400) / 400 + noise).tolist()):
        manager.step(value)
        assert manager.get_current_lr() >= 0.1, i
    assert {change.action for change in manager.changes} == {"increase"}
    assert manager.changes[0].noise == pytest.approx(0.02, rel=0.6)


@pytest.mark.parametrize("patience", [5, 10])
def test_noise_alone_lowers_nothing(patience):
    """Of 60 trainings whose loss goes from 2 to 1 under noise, none is slowed down."""
    rng = np.random.default_rng(1)
    for sigma in (0.05, 0.15, 0.3):
        for run in (2 - np.arange(500) / 500 + sigma * rng.standard_normal((20, 500))).tolist():
            manager = AdaptiveLearningRateManager(sgd(0.1), patience=patience, loss_threshold=0.01)
            assert all(change is None or change.action == "increase" for change in map(manager.step, run))


def test_a_noisy_plateau_lowers_the_rate_and_lowers_it_again():
    noise = 0.05 * np.random.default_rng(2).standard_normal(1500)
    manager = AdaptiveLearningRateManager(sgd(0.1), patience=10, increase_factor=1.0)
    for value in (np.maximum(2 - np.arange(1500) / 300, 1) + noise).tolist():
        manager.step(value)
    assert 300 < manager.changes[0].step < 450
    assert len(manager.changes) >= 3
    assert manager.get_current_lr() == pytest.approx(0.1 * 0.5 ** len(manager.changes))


def test_the_rate_stays_above_its_limit():
    manager = AdaptiveLearningRateManager(sgd(1.0), min_lr=0.3, patience=1, cooldown=0)
    rates = [manager.get_current_lr() for _ in range(8) if manager.step(1.0) is not None]
    assert rates == [0.5, 0.3]


def test_after_a_change_it_rests():
    manager = AdaptiveLearningRateManager(sgd(1.0), patience=2, cooldown=3)
    assert [i for i in range(14) if manager.step(1.0) is not None] == [2, 7, 12]


def test_a_first_rate_scales_all_groups():
    optimizer = sgd(0.1, 0.2)
    manager = AdaptiveLearningRateManager(optimizer, initial_lr=0.01)
    assert lrs(optimizer) == pytest.approx([0.01, 0.02])
    assert manager.get_current_lr() == 0.01


def test_a_rate_that_is_a_tensor_is_filled_in_place():
    rate = torch.tensor(0.5, dtype=torch.float64)
    manager = AdaptiveLearningRateManager(sgd(rate), patience=1)
    for _ in range(2):
        manager.step(1.0)
    assert float(rate) == 0.25


def test_a_group_that_is_added_keeps_its_share():
    optimizer = sgd(1.0)
    manager = AdaptiveLearningRateManager(optimizer, patience=1, cooldown=0)
    manager.step(1.0), manager.step(1.0)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.1})
    manager.step(1.0)
    assert lrs(optimizer) == pytest.approx([0.25, 0.05])


def test_warn_changes_nothing_and_warns_once():
    manager = AdaptiveLearningRateManager(sgd(1.0), patience=1, cooldown=0, on_plateau="warn")
    manager.step(1.0)
    with pytest.warns(UserWarning, match="stopped improving"):
        change = manager.step(1.0)
    assert (change.action, change.before, change.after) == ("warn", 1.0, 1.0)
    assert manager.step(1.0).action == "warn"
    assert manager.get_current_lr() == 1.0


def test_restarts_rise_to_falling_peaks_and_return():
    options = {"patience": 1, "cooldown": 0, "restart_steps": 40, "peak_factor": 2.0, "peak_decay": 0.8}
    shape = Adaptive(on_plateau="restart", **options)
    peaks, actions, rates = [], [], []
    for step in range(200):
        change = shape.observe(step, 1.0)
        rates.append(shape(step, 1000).lr)
        if change is not None:
            actions.append(change.action)
            peaks.append(change.after)
        if len(actions) == 5:
            break
    assert actions == ["restart"] * 4 + ["reduce"]
    assert peaks == pytest.approx([2.0, 1.6, 1.28, 1.024, 0.5])
    first = rates[1:41]
    assert max(first) == pytest.approx(2.0)
    top = first.index(max(first))
    assert top == 3
    assert first[:top] == sorted(first[:top])
    assert first[top:] == sorted(first[top:], reverse=True)
    assert 1.0 < first[-1] < 1.01


def test_losses_that_are_not_finite_measure_nothing():
    manager = AdaptiveLearningRateManager(sgd(1.0), patience=2)
    for loss in (1.0, math.nan, 1.0, math.inf, math.nan):
        assert manager.step(loss) is None
    assert manager.num_ignored == 3
    assert manager.step(1.0).action == "reduce"


@pytest.mark.parametrize("on_plateau", ["reduce", "restart"])
@pytest.mark.parametrize("at", [0, 5, 130, 333])
def test_a_manager_continues_exactly(at, on_plateau):
    values = np.maximum(2 - np.arange(500) / 80, 1) + 0.01 * np.random.default_rng(3).standard_normal(500)
    options = {"patience": 6, "on_plateau": on_plateau, "restart_steps": 50}

    def fresh() -> AdaptiveLearningRateManager:
        return AdaptiveLearningRateManager(sgd(0.1, 0.3), **options)

    whole, first, second = fresh(), fresh(), fresh()
    expected = [(whole.step(value), whole.get_current_lr()) for value in values.tolist()]
    got = [(first.step(value), first.get_current_lr()) for value in values[:at].tolist()]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert lrs(second.optimizer) == lrs(first.optimizer)
    got += [(second.step(value), second.get_current_lr()) for value in values[at:].tolist()]
    assert got == expected
    assert second.changes == whole.changes != []
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 0}, {"cooldown": -1}, {"reduction_factor": 1.0}, {"increase_factor": 0.9},
        {"loss_threshold": -0.1}, {"min_lr": 0.2}, {"max_lr": 0.05}, {"initial_lr": 0.0}, {"on_plateau": "panic"},
        {"patiense": 3},
    ],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        AdaptiveLearningRateManager(sgd(0.1), **options)


def test_a_rate_that_the_optimizer_chooses_is_refused():
    with pytest.raises(InputError, match=r"param_groups\[1\].lr"):
        AdaptiveLearningRateManager(sgd(0.1, None))


def test_a_foreign_state_is_refused():
    with pytest.raises(InputError, match="not a manager's"):
        AdaptiveLearningRateManager(sgd(0.1)).load_state_dict({"step": 3})
    with pytest.raises(InputError, match="param groups"):
        AdaptiveLearningRateManager(sgd(0.1)).load_state_dict(AdaptiveLearningRateManager(sgd(0.1, 0.2)).state_dict())


@pytest.mark.parametrize("make", [Plateau, Adaptive])
def test_the_schedules_are_driven_and_continue_exactly(make):
    values = np.maximum(2 - np.arange(300) / 60, 1) + 0.01 * np.random.default_rng(4).standard_normal(300)
    whole, first, second = make(), make(), make()
    assert isinstance(whole, Driven)
    expected = [(whole.observe(i, value), whole(i, 300)) for i, value in enumerate(values.tolist())]
    for i, value in enumerate(values[:150].tolist()):
        first.observe(i, value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    later = [(second.observe(i, value), second(i, 300)) for i, value in enumerate(values.tolist()) if i >= 150]
    assert later == expected[150:]
    assert any(change is not None for change, _ in later)


def test_manager_and_schedule_decide_alike():
    values = np.maximum(2 - np.arange(600) / 150, 1) + 0.02 * np.random.default_rng(5).standard_normal(600)
    manager, shape = AdaptiveLearningRateManager(sgd(0.1)), Adaptive()
    for step, value in enumerate(values.tolist(), 1):
        manager.step(value)
        shape.observe(step, value)
        assert manager.get_current_lr() == pytest.approx(0.1 * shape(step, 600).lr)
    assert manager.changes != []

"""Plateaus are found, and noise is not taken for one."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
import torch

from ava.errors import InputError
from ava.optimization import AdaptiveLearningRateManager, PlateauDetector
from ava.optimization.learning_rate.schedules.plateau import Plateau

NOISE_FREE = {
    "constant": [1.0] * 40,
    "straight_below_threshold": [1 - 1e-6 * i for i in range(60)],
    "exponential": [1 + math.exp(-i / 8) for i in range(110)],
    "turning": [1 + abs(i - 30) / 30 for i in range(60)],
    "turning_smoothly": [1 + (i - 30) ** 2 / 90 for i in range(60)],
    "falling_in_steps": [[1, 0.5, 0.25, 0.1][i // 20] for i in range(70)],
    "rising": [1 + 0.01 * i for i in range(40)],
    "to_a_floor": [max(0.9**i, 0.05) for i in range(70)],
    "overfitting": [0.5 + math.exp(-i / 4) + 0.002 * i for i in range(60)],
}


def noise_of(kind: str, rng: np.random.Generator, runs: int, steps: int) -> np.ndarray:
    """Unit noise: gaussian, heavy-tailed, or correlated from step to step."""
    if kind == "t3":
        return rng.standard_t(3, (runs, steps)) / math.sqrt(3)
    white = rng.standard_normal((runs, steps))
    if kind == "gaussian":
        return white
    rho = float(kind.removeprefix("ar"))
    for i in range(1, steps):
        white[:, i] = rho * white[:, i - 1] + math.sqrt(1 - rho * rho) * white[:, i]
    return white


def curve_of(family: str, steps: int) -> np.ndarray:
    t = np.arange(steps)
    return {
        "linear": 2 - t / steps,
        "exponential": 1 + np.exp(-2 * t / steps),
        "power": 4 * (t + 10.0) ** -0.3,
    }[family]


def alarms(series: np.ndarray, patience: int) -> list[int]:
    """The first alarm of every run that has one."""
    found = []
    for run in series.tolist():
        detector = PlateauDetector(patience)
        first = next((i for i, value in enumerate(run) if detector.step(value)), None)
        if first is not None:
            found.append(first)
    return found


@pytest.mark.parametrize("patience", [1, 3, 10, 40])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_constant_metric_is_a_plateau_every_patience_values(patience, mode):
    detector = PlateauDetector(patience, mode=mode)
    fired = [i for i in range(3 * patience + 1) if detector.step(0.7)]
    assert fired == [patience, 2 * patience, 3 * patience]


@pytest.mark.parametrize(("mode", "sign"), [("min", -1), ("max", 1)])
def test_improvements_above_min_delta_are_no_plateau(mode, sign):
    detector = PlateauDetector(patience=3, min_delta=0.001, mode=mode)
    assert not any(detector.step(1 + sign * 0.0011 * i) for i in range(800))


def test_improvements_below_min_delta_are_none():
    detector = PlateauDetector(patience=5, min_delta=0.001)
    assert [i for i in range(6) if detector.step(1 - 1e-4 * i)] == [5]


@pytest.mark.parametrize(
    "options", [{"patience": 3}, {"patience": 7, "cooldown": 4}, {"patience": 5, "threshold": 0.01}]
)
@pytest.mark.parametrize("name", NOISE_FREE)
def test_without_noise_it_reduces_when_torch_does(name, options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, eps=0.0, **options)
    ours = Plateau(factor=0.5, **options)
    for step, value in enumerate(NOISE_FREE[name]):
        theirs.step(value)
        ours.observe(step, value)
        assert ours(step, 1000).lr == optimizer.param_groups[0]["lr"], step


def test_a_thousand_noisy_runs_that_improve_raise_no_alarm():
    """At most 1 % may; torch's count, on the same runs, ends in an alarm every time."""
    series = curve_of("linear", 150) + 0.15 * noise_of("gaussian", np.random.default_rng(0), 1000, 150)
    assert len(alarms(series, patience=10)) <= 2


@pytest.mark.parametrize("kind", ["gaussian", "t3", "ar0.5", "ar0.9"])
@pytest.mark.parametrize("family", ["linear", "exponential", "power"])
def test_noise_of_any_kind_is_no_plateau(family, kind):
    for size in (0.01, 0.1, 0.5):
        curve = curve_of(family, 400)
        series = curve + size * curve * noise_of(kind, np.random.default_rng(1), 12, 400)
        assert alarms(series, patience=5) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "t3", "ar0.5", "ar0.9"])
@pytest.mark.parametrize("family", ["linear", "exponential", "power"])
def test_one_run_in_a_hundred_may_raise_a_false_alarm(family, kind):
    curve = curve_of(family, 1000)
    series = curve + 0.1 * curve.mean() * noise_of(kind, np.random.default_rng(2), 1000, 1000)
    assert len(alarms(series, patience=10)) <= 10


@pytest.mark.parametrize(("kind", "within"), [("gaussian", 180), ("t3", 180), ("ar0.5", 400)])
def test_a_plateau_in_noise_is_found(kind, within):
    """2 to 1 in 300 steps, then level, with noise of 10 %."""
    curve = 2 - np.minimum(np.arange(1000), 300) / 300
    found = alarms(curve + 0.1 * noise_of(kind, np.random.default_rng(3), 25, 1000), patience=10)
    assert 0 < statistics.median(found) - 300 < within


def test_a_few_evaluations_with_little_noise_suffice():
    curve = 1 + np.exp(-np.arange(80) / 5)
    found = alarms(curve + 0.001 * noise_of("gaussian", np.random.default_rng(4), 40, 80), patience=5)
    assert len(found) == 40
    # The curve falls by less than min_delta from step 32 on.
    assert abs(statistics.median(found) - 38) <= 3


def test_a_loss_that_worsens_slowly_is_a_plateau():
    curve = 1 + np.abs(np.arange(900) - 300) / 300
    found = alarms(curve + 0.1 * noise_of("gaussian", np.random.default_rng(5), 15, 900), patience=10)
    assert 0 < statistics.median(found) - 300 < 150


def test_a_value_that_is_not_finite_is_left_out():
    detector = PlateauDetector(patience=3)
    fired = [detector.step(value) for value in (1.0, math.nan, 1.0, math.inf, 1.0, -math.inf, 1.0)]
    assert fired == [False] * 6 + [True]
    assert detector.num_ignored == 3


@pytest.mark.parametrize("at", [0, 1, 7, 63, 150, 421])
def test_a_state_continues_exactly(at):
    values = (np.maximum(2 - np.arange(700) / 150, 1) + 0.03 * np.random.default_rng(6).standard_normal(700)).tolist()
    whole, first, second = PlateauDetector(8), PlateauDetector(8), PlateauDetector(8)
    expected = [whole.step(value) for value in values]
    got = [first.step(value) for value in values[:at]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    assert got + [second.step(value) for value in values[at:]] == expected
    assert any(expected)
    assert second.state_dict() == whole.state_dict()


def test_its_memory_is_bounded():
    detector = PlateauDetector()
    values = np.random.default_rng(7).standard_normal(12_000) - np.arange(12_000) / 2000
    sizes = []
    for i, value in enumerate(values.tolist(), 1):
        detector.step(value)
        if i in (3_000, 12_000):
            sizes.append(len(json.dumps(detector.state_dict())))
    assert sizes[1] < 1.5 * sizes[0]


@pytest.mark.parametrize("options", [{"patience": 0}, {"min_delta": -1.0}, {"mode": "best"}, {"patience": 2.5}])
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        PlateauDetector(**options)


def test_a_raised_rate_forgets_nothing_of_the_fall():
    """Increases on the way down leave the plateau after it as easy to see as it is without them."""
    rng = np.random.default_rng(0)
    series = np.concatenate([np.linspace(2, 1, 200), np.ones(300)]) + 0.01 * rng.standard_normal(500)
    manager = AdaptiveLearningRateManager(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3))
    changes = [change for value in series if (change := manager.step(float(value))) is not None]
    raised = [change.step for change in changes if change.action == "increase"]
    lowered = [change.step for change in changes if change.action == "reduce"]
    assert len(raised) > 3
    assert max(raised) < 210
    assert 200 < min(lowered) < 250


@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_a_loss_that_never_fell_is_a_plateau_in_the_end(noise):
    found = []
    for seed in range(5):
        detector, rng = PlateauDetector(), np.random.default_rng(seed)
        found.append(next(k for k in range(2000) if detector.step(1 + noise * rng.standard_normal())))
    assert max(found) < 1000

"""Suggestions on curves whose answer is known, with and without noise; refusals where there is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ava.errors import InputError
from ava.optimization import LRFinderConfig
from ava.optimization.learning_rate.finder.findings import examine
from ava.optimization.learning_rate.finder.range_test import RangeTest
from ava.optimization.learning_rate.finder.suggestions import NoSuggestion, suggest
from ava.optimization.learning_rate.finder.trend import WIDTH, trend_of

X = np.linspace(-7, 1, 120)


def valley(x, fall_at=-3.0, rise_at=-0.5, depth=1.5, width=0.4):
    """Flat at 2.5, a fall about `fall_at`, an explosion from `rise_at` on."""
    fall = depth / (1 + np.exp(-(x - fall_at) / width))
    return 2.5 - fall + np.exp(np.minimum(8 * (x - rise_at), 5))


def noisy(losses, noise, seed):
    return losses + noise * np.random.default_rng(seed).standard_normal(len(losses))


def test_each_method_reads_its_own_point():
    found = suggest(10**X, valley(X))
    smooth = trend_of(10**X, valley(X))
    lowest = 10 ** X[smooth.lowest]
    assert found["minimum"].lr == pytest.approx(lowest / 10)
    assert math.log10(found["steepest"].lr) == pytest.approx(-3.0, abs=0.1)
    assert -3.0 < math.log10(found["valley"].lr) < math.log10(lowest)
    tenth = X[np.flatnonzero(smooth.loss < smooth.loss.max() - 0.1 * (smooth.loss.max() - smooth.loss.min()))[0]]
    assert math.log10(found["valley"].lr) == pytest.approx(tenth + 0.8 * (math.log10(lowest) - tenth), abs=0.02)
    assert all(one.method == name and one.reason.endswith(".") for name, one in found.items())


@pytest.mark.parametrize("shift", [-2.0, -1.0, 0.5])
@pytest.mark.parametrize("method", ["valley", "steepest", "minimum"])
def test_moves_with_the_curve(method, shift):
    one, other = suggest(10**X, valley(X)), suggest(10**X, valley(X, -3.0 + shift, -0.5 + shift))
    assert math.log10(other[method].lr / one[method].lr) == pytest.approx(shift, abs=0.1)


@pytest.mark.parametrize("method", ["valley", "steepest", "minimum"])
def test_does_not_depend_on_the_unit_of_the_loss(method):
    one, other = suggest(10**X, valley(X)), suggest(10**X, 1000 * valley(X) - 5000)
    assert other[method].lr == pytest.approx(one[method].lr)


@pytest.mark.parametrize("num_steps", [60, 120, 500])
def test_does_not_depend_on_the_number_of_steps(num_steps):
    x = np.linspace(-7, 1, num_steps)
    found, usual = suggest(10**x, valley(x)), suggest(10**X, valley(X))
    assert math.log10(found["valley"].lr / usual["valley"].lr) == pytest.approx(0, abs=0.15)


@pytest.mark.parametrize(("noise", "spread"), [(0.05, 0.25), (0.2, 0.5)])
@pytest.mark.parametrize("method", ["valley", "minimum"])
def test_noise_moves_it_by_less_than_half_a_power_of_ten(method, noise, spread):
    clean = suggest(10**X, valley(X))[method].lr
    off = [math.log10(suggest(10**X, noisy(valley(X), noise, seed))[method].lr / clean) for seed in range(40)]
    assert np.mean(np.abs(off)) < spread
    assert max(map(abs, off)) < 1.5


def test_noise_alone_is_refused():
    for seed in range(100):
        with pytest.raises(NoSuggestion, match="never fell by more than its noise"):
            suggest(10**X, noisy(np.full(120, 2.5), 0.3, seed))


def test_noise_and_then_an_explosion_is_refused():
    losses = noisy(2.5 + np.exp(np.minimum(8 * (X + 1), 5)), 0.2, 0)
    with pytest.raises(NoSuggestion, match=r"never fell.*larger batches"):
        suggest(10**X, losses)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_still_falling_at_the_end_asks_for_a_higher_max_lr(noise):
    x = X[X < -2.6]
    with pytest.raises(NoSuggestion, match=r"max_lr=.*still falls.*Raise max_lr"):
        suggest(10**x, noisy(valley(x), noise, 0))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_rising_from_the_start_asks_for_a_lower_min_lr(noise):
    x = np.linspace(-0.9, 1, 60)
    with pytest.raises(NoSuggestion, match=r"min_lr=.*rises from the lowest.*Lower min_lr"):
        suggest(10**x, noisy(valley(x), noise, 0))


def test_diverged_within_few_steps_asks_for_a_lower_min_lr():
    with pytest.raises(NoSuggestion, match=r"finite for only 4 steps.*Lower min_lr"):
        suggest(10**X, [2.5, 3.0, 5.0, 30.0] + [math.nan] * 116)


def test_never_finite_is_not_the_rates_fault():
    with pytest.raises(NoSuggestion, match="very first loss is not a finite number"):
        suggest(10**X, [math.nan] * 120)


def test_a_refusal_is_bad_input():
    assert issubclass(NoSuggestion, InputError)


def test_the_trend_does_not_lag():
    """A curve that is odd about a point keeps its middle there; a moving average would show it later."""
    x = np.linspace(-5, 1, 121)
    trend = trend_of(10**x, 2 - np.tanh(x + 2))
    middle = np.interp(0, -(trend.loss - 2), trend.x)
    assert middle == pytest.approx(-2, abs=WIDTH / 10)


def curves(config, seeds, noise=0.2):
    for seed in range(seeds):
        test = RangeTest(config)
        x = np.log10(test.lrs)
        # One seed explodes early: the median must not.
        for loss in noisy(valley(x, rise_at=-2.0 if seed == 0 else -0.5), noise, seed):
            if not test.take(float(loss)):
                break
        yield test.curve()


def test_several_seeds_are_read_together():
    config = LRFinderConfig(max_lr=10.0, num_steps=120)
    found = examine(list(curves(config, 5)), config)
    low, high = found.band
    assert all(a <= m <= b for a, m, b in zip(low, found.centre.loss, high, strict=True))
    assert len(found.centre.lr) > len(found.curves[0].lr)
    assert len(found.of_seeds) == 5
    assert math.log10(found.chosen.lr / suggest(10**X, valley(X))["valley"].lr) == pytest.approx(0, abs=0.3)
    plain = found.as_dict()
    assert plain["suggestion"] == plain["suggestions"][plain["method"]] == found.chosen.lr
    assert len(plain["seeds"]) == 5
    assert len(plain["lr"]) == len(plain["loss"]) == len(plain["smoothed"])


@pytest.mark.parametrize("method", ["valley", "steepest", "minimum"])
def test_the_chosen_method_is_returned(method):
    config = LRFinderConfig(max_lr=10.0, method=method)
    found = examine(list(curves(config, 3)), config)
    assert found.chosen == found.suggestions[method]


def test_findings_of_a_refusal_still_hold_the_curve():
    config = LRFinderConfig(max_lr=1e-3)
    found = examine(list(curves(config, 1, noise=0.0)), config)
    plain = found.as_dict()
    assert (plain["suggestion"], plain["suggestions"], len(plain["loss"])) == (None, {}, 100)
    assert "Raise max_lr" in plain["reason"]
    with pytest.raises(NoSuggestion, match="Raise max_lr"):
        _ = found.chosen

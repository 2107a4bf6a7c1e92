"""The rates of a range test, its moving average and its end."""

from __future__ import annotations

import itertools
import math

import pytest

from ava.errors import InputError
from ava.optimization import LRFinderConfig
from ava.optimization.learning_rate.finder.range_test import RangeTest


def run(losses, **options):
    test = RangeTest(LRFinderConfig(**{"num_steps": max(10, len(losses))} | options))
    for loss in losses:
        if not test.take(loss):
            break
    return test


@pytest.mark.parametrize(("low", "high", "steps"), [(1e-7, 1.0, 100), (1e-5, 10.0, 13), (0.1, 0.3, 10)])
def test_rates_rise_by_a_constant_ratio_from_end_to_end(low, high, steps):
    lrs = RangeTest(LRFinderConfig(min_lr=low, max_lr=high, num_steps=steps)).lrs
    assert (len(lrs), lrs[0], lrs[-1]) == (steps, low, high)
    ratio = (high / low) ** (1 / (steps - 1))
    assert all(b / a == pytest.approx(ratio) for a, b in itertools.pairwise(lrs))


def test_smoothed_is_the_bias_corrected_average():
    losses = [3.0, 1.0, 4.0, 1.0, 5.0]
    curve = run(losses, smoothing_factor=0.3).curve()
    for k in range(1, 6):
        weights = [0.3 * 0.7 ** (k - 1 - j) for j in range(k)]
        expected = sum(w * x for w, x in zip(weights, losses, strict=False)) / sum(weights)
        assert curve.smoothed[k - 1] == pytest.approx(expected)


def test_ends_with_the_range():
    test = RangeTest(LRFinderConfig(num_steps=10))
    seen = []
    while not test.is_over:
        seen.append(test.lr)
        assert test.take(2.0) is (len(seen) < 10)
    assert seen == list(test.curve().lr)
    assert test.curve().stopped == "covered"


@pytest.mark.parametrize(("losses", "count"), [([2.0, 1.0, 3.9, 4.1], 4), ([-2.0, -3.0, 5.9, 6.1], 4)])
def test_ends_where_the_average_exceeds_its_lowest_so_often(losses, count):
    curve = run([*losses, 1.0], smoothing_factor=1.0).curve()
    assert (curve.stopped, len(curve.loss)) == ("diverged", count)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_ends_where_the_loss_is_no_number(loss):
    curve = run([2.0, loss, 2.0]).curve()
    assert (curve.stopped, len(curve.loss), curve.lr[0]) == ("not finite", 2, 1e-7)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"min_lr": 0.0}, "min_lr=0.0: must be a finite number above 0"),
        ({"min_lr": 10.0}, r"max_lr=10.0: must be above min_lr=10.*1e-7 and 10"),
        ({"max_lr": math.inf}, "max_lr=inf: must be a finite number"),
        ({"num_steps": 9}, "num_steps=9: must be a whole number at least 10"),
        ({"num_steps": 20.5}, "num_steps=20.5"),
        ({"smoothing_factor": 0.0}, "smoothing_factor=0.0: must be a finite number above 0 and at most 1"),
        ({"smoothing_factor": 1.5}, "smoothing_factor=1.5"),
        ({"diverge_factor": 1.0}, "diverge_factor=1.0: must be a finite number above 1"),
        ({"method": "best"}, "method=best: must be one of 'probes', 'valley', 'steepest', 'minimum'"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        LRFinderConfig(**options)

from __future__ import annotations

import pytest

from ava.reporting.layout import Pace, duration, number, result_table


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0, "0.0"), (3, "3"), (58634, "58,634"), (0.98765, "0.9877"), (12.34567, "12.3457"),
     (1e-4, "1.000e-04"), (0.05, "0.05"), (123456.7, "1.235e+05"),
     (-0.5, "-0.5000"), (float("nan"), "nan"), (float("-inf"), "-inf")],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_slow_first_steps_are_forgotten():
    times = iter([0.0, 100.0, 101.0, 102.0])
    pace = Pace(1, 1000, lambda: next(times))
    assert pace.left(10) == duration(990 * 10)
    assert pace.left(20) == duration(98)
    assert pace.left(30) == duration(97)


def test_a_resumed_run_counts_from_where_it_stands():
    times = iter([0.0, 10.0])
    assert Pace(501, 1000, lambda: next(times)).left(510) == duration(490)


def test_no_telling():
    assert Pace(1, None).left(10) == "?"
    assert Pace(5, 10).left(4) == "?"


def test_no_evaluation_no_table():
    assert result_table({"best": {"loss": {"value": 1.0, "step": 1}}}) is None

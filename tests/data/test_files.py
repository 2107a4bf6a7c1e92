"""Splitting by file: stable, and never one-sided where there is a choice."""

from __future__ import annotations

import pytest

from ava.data.files import held_out

NAMES = [f"folder/file{k}.py" for k in range(2000)]


def test_about_the_fraction_is_held_out():
    assert sum(held_out(NAMES, 0.05)) / 2000 == pytest.approx(0.05, abs=0.015)


def test_a_file_keeps_its_side_when_others_come_and_go():
    sides = dict(zip(NAMES, held_out(NAMES, 0.2), strict=True))
    some = NAMES[::3]
    assert held_out(some, 0.2) == [sides[name] for name in some]


@pytest.mark.parametrize("fraction", [0.0, 1e-9, 1.0])
@pytest.mark.parametrize("count", [2, 3, 50])
def test_each_side_gets_a_file(fraction, count):
    assert 0 < sum(held_out(NAMES[:count], fraction)) < count


def test_a_single_file_is_for_training():
    assert held_out(["a"], 1.0) == [False]
    assert held_out([], 0.5) == []

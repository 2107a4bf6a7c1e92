"""The picture and the table of a search."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import LRFinder, LRFinderConfig
from ava.optimization.learning_rate.finder.findings import examine
from ava.optimization.learning_rate.finder.plot import draw
from ava.optimization.learning_rate.finder.range_test import RangeTest
from ava.optimization.learning_rate.finder.suggestions import NoSuggestion


def findings(seeds=1, max_lr=10.0, nan_from=None):
    config = LRFinderConfig(max_lr=max_lr)
    curves = []
    for seed in range(seeds):
        test, random = RangeTest(config), np.random.default_rng(seed)
        for step, lr in enumerate(test.lrs):
            x = np.log10(lr)
            loss = 2.5 - 1.5 / (1 + np.exp(-(x + 3) / 0.4)) + np.exp(8 * (x + 0.5)) + 0.05 * random.standard_normal()
            if not test.take(float("nan") if step == nan_from else float(loss)):
                break
        curves.append(test.curve())
    return examine(curves, config)


@pytest.mark.parametrize("seeds", [1, 3])
def test_every_suggestion_is_drawn_and_the_chosen_one_stands_out(tmp_path, seeds):
    found = findings(seeds)
    figure = draw(found, tmp_path / "lr.png")
    axes = figure.axes[0]
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")
    assert axes.get_xscale() == "log"
    marked = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert {one.lr for one in found.suggestions.values()} <= set(marked)
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sum("suggested" in word for word in words) == 1
    assert ("all seeds" in words) is (seeds > 1)
    assert any(found.chosen.reason.split()[0] in text.get_text() for text in axes.texts)


def test_the_explosion_at_the_end_does_not_flatten_the_valley():
    low, high = draw(findings()).axes[0].get_ylim()
    assert 0.5 < low < 1.0
    assert 2.5 < high < 4.0


@pytest.mark.parametrize("nan_from", [None, 0, 1, 30])
def test_a_refusal_is_drawn_with_its_reason(tmp_path, nan_from):
    found = findings(max_lr=1e-3, nan_from=nan_from)
    axes = draw(found, tmp_path / "lr.png").axes[0]
    assert found.refusal is not None
    assert axes.get_title(loc="left") == "No suggestion"
    assert any(found.refusal.problem.split(":")[0][:20] in text.get_text() for text in axes.texts)


def test_global_state_of_matplotlib_is_left_alone():
    was_imported = "matplotlib.pyplot" in sys.modules
    draw(findings())
    assert ("matplotlib.pyplot" in sys.modules) == was_imported


def test_finder_draws_and_writes_after_a_refusal_too(tmp_path):
    model = nn.Linear(4, 1)
    config = LRFinderConfig(min_lr=1e-9, max_lr=1e-8, num_steps=20)
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.functional.mse_loss, config)
    for call in (finder.plot, lambda: finder.write_csv(tmp_path / "lr.csv")):
        with pytest.raises(InputError, match=r"no curve yet.*find"):
            call()
    torch.manual_seed(0)
    with pytest.raises(NoSuggestion):
        finder.find([(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(20)], seeds=2)
    finder.plot(tmp_path / "lr.png")
    finder.write_csv(tmp_path / "lr.csv")
    with (tmp_path / "lr.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["seed", "step", "lr", "loss", "smoothed"]
    assert len(rows) == 40
    assert float(rows[3]["loss"]) == finder.findings.curves[0].loss[3]


def test_one_seed_has_no_column_of_its_own(tmp_path):
    model = nn.Linear(4, 1)
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1))
    finder.findings = findings()
    finder.write_csv(tmp_path / "lr.csv")
    assert (tmp_path / "lr.csv").read_text().splitlines()[0] == "step,lr,loss,smoothed"

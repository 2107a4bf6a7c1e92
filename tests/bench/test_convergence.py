"""Every optimizer's defaults train: the bench says how well, over AdamW's."""

import json
import math

import numpy as np
import pytest

from ava.bench import convergence
from ava.bench.convergence import BASE, COSINE, SCHEDULES, TOLERANCE, compare, train
from ava.bench.trainings import PROBLEMS, Problem, Some
from ava.cli.main import main
from ava.optimization import list_optimizers

TINY = Problem(("task=digits", "model=mlp", "model.width=64", "data.augment=false"), steps=60, num_valid=64)


@pytest.fixture
def tiny(monkeypatch):
    """A problem of a few milliseconds in place of all others."""
    monkeypatch.setattr(convergence, "PROBLEMS", {"digits": TINY})


def test_the_table_holds_the_base_first_and_every_ratio_to_it(tiny, tmp_path, capsys):
    file = tmp_path / "x.json"
    words = ["--problems", "digits", "--only", "lion", "adamw", "--seeds", "2", "--with", "optimizer.lr=1e-9"]
    assert main(["bench", "convergence", *words, "--json", str(file)]) == 0
    base, lion = json.loads(file.read_text())["rows"]
    assert (base["optimizer"], base["digits_ratio"], base["passes"]) == (BASE, 1.0, True)
    assert lion["digits_ratio"] == pytest.approx(lion["digits"] / base["digits"], abs=1e-3)
    assert lion["digits_ratio"] > TOLERANCE
    assert not lion["passes"]
    assert len(set(base["digits_seeds"])) == 2
    assert "within 1.10" in capsys.readouterr().out


def test_each_is_a_row_and_may_be_several_overrides(tiny, tmp_path):
    file = tmp_path / "x.json"
    each = ["optimizer.lr=1e-3", "optimizer.lr=1e-9 optimizer.cautious=true"]
    assert main(["bench", "convergence", "--each", *each, "--json", str(file)]) == 0
    base, same, still = json.loads(file.read_text())["rows"]
    assert [same["optimizer"], still["optimizer"]] == [f"adamw {words}" for words in each]
    assert same["digits"] == base["digits"]
    assert still["digits_ratio"] > TOLERANCE


def test_a_training_is_the_same_again_and_better_than_none():
    trained = train(TINY, "adamw", 0, ["optimizer.lr=1e-2"])
    assert trained == train(TINY, "adamw", 0, ["optimizer.lr=1e-2"])
    assert trained.valid < train(TINY, "adamw", 0, ["optimizer.lr=1e-9"]).valid
    assert trained.train < math.log(10)


def test_what_is_no_number_fails():
    assert train(TINY, "sgd", 0, ["optimizer.lr=1e30", "trainer.clip=none"]).valid == math.inf


def test_only_part_of_the_validation_data_is_looked_at():
    class Indices(list):
        def fetch(self, indices, epoch):
            return indices.tolist()

    some, all_there_is = Some(Indices(range(10)), 4), Some(Indices(range(3)), 4)
    assert some.fetch(np.arange(len(some)), 0) == [0, 2, 5, 7]
    assert all_there_is.fetch(np.arange(len(all_there_is)), 0) == [0, 1, 2]


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_of_its_own_can_be_composed(name):
    assert name in list_optimizers()
    assert SCHEDULES[name] != COSINE
    assert math.isfinite(train(Problem(TINY.overrides, 20, 8), name).valid)


def test_an_unknown_name_is_refused(capsys):
    assert main(["bench", "convergence", "--only", "lyon"]) == 2
    assert "`lion`" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_optimizers() if name != BASE])
def test_every_default_is_within_a_tenth_of_adamw_on_digits(name):
    """Three seeds: one alone moves the ratio by some hundredths."""
    _, row = compare([name], {"digits": PROBLEMS["digits"]}, range(3))
    assert row["digits_ratio"] <= TOLERANCE, row

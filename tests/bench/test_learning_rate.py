"""The measurement of learning rates: what it trains, what its tables say, and what its file saves."""

import itertools
import json
import math

import pytest
import torch

from ava.bench import learning_rate, learning_rate_tables, training_book
from ava.bench.convergence import TOLERANCE
from ava.bench.learning_rate_tables import GRIDS, ONECYCLE, WAYS, Measurement, finder_jobs, finder_rows, way_rows
from ava.bench.rate_searches import Job, Search, Training, carry_out
from ava.bench.trainings import Problem, take_steps
from ava.cli.main import main
from ava.errors import InputError
from ava.optimization.learning_rate.course import Course
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.scheduler import Scheduler
from ava.training.loop import Trainer
from tests.training.helpers import small_run, weights

TINY = Problem(
    ("task=digits", "model=mlp", "model.width=32", "data.augment=false", "lr_finder.num_steps=60", "lr_finder.seeds=1"),
    steps=20, num_valid=64,
)  # fmt: skip
RATES = (1e-6, 1e-2)


@pytest.fixture
def tiny(monkeypatch):
    """A problem and grids of a few milliseconds in place of all others."""
    monkeypatch.setattr(learning_rate, "PROBLEMS", {"digits": TINY})
    for name in GRIDS:
        monkeypatch.setitem(learning_rate_tables.GRIDS, name, RATES)


def measure(file, *words):
    """The tables and the trainings that the command writes."""
    assert main(["bench", "learning_rate", *words, "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    return found["tables"], found["trainings"]


def test_both_tables_share_their_trainings(tiny, tmp_path, capsys):
    tables, trainings = measure(tmp_path / "x.json", "--only", "adamw", "--ways", "finder", "prodigy")
    assert len(trainings) == len(RATES) + 1 + 2  # the grid, the range test, the plain way and Prodigy
    assert [len(tables[name]) for name in ("finder", "ways")] == [1, 4]
    (finder,) = tables["finder"]
    rows = {row["way"]: row for row in tables["ways"]}
    assert rows["range test, onecycle"]["valid"] == finder["valid"]
    assert rows[f"best of {len(RATES)} rates, onecycle"]["valid"] == finder["best_valid"]
    out = capsys.readouterr().out
    assert "within 1.10" in out
    assert "prodigy, cosine" in out


def test_the_numbers_of_a_training_are_told(tiny, tmp_path):
    tables, trainings = measure(tmp_path / "x.json", "--tables", "finder", "--only", "lion")
    (row,) = tables["finder"]
    grid = {one["lr"]: one["valid"] for one in trainings if one["search"] is None}
    (found,) = [one for one in trainings if one["search"] is not None]
    assert [tuple(pair) for pair in row["grid"]] == list(grid.items())
    assert row["best_valid"] == min(grid.values()) == grid[row["best_lr"]]
    assert row["suggestions"] == [found["lr"]] == [found["search"]["lr"]]
    assert row["ratio"] == pytest.approx(found["valid"] / row["best_valid"])
    assert row["within"] == (row["ratio"] <= TOLERANCE)
    assert {one["schedule"] for one in trainings} == {"onecycle"}
    assert all(one["steps"] == TINY.steps and one["cpu_s"] > 0 for one in trainings)
    assert 150 < found["search"]["steps"] <= 60 + 3 * 50


def test_a_cost_holds_the_search(tiny, tmp_path):
    tables, trainings = measure(tmp_path / "x.json", "--tables", "ways", "--ways", "finder")
    rows = {row["way"]: row for row in tables["ways"]}
    (found,) = [one for one in trainings if one["search"] is not None]
    searched = rows["range test, onecycle"]
    assert searched["steps"] == TINY.steps + found["search"]["steps"]
    assert searched["cpu_s"] == pytest.approx(found["cpu_s"] + found["search"]["cpu_s"])
    assert rows["default rate, cosine"]["steps_ratio"] == rows["default rate, cosine"]["cpu_ratio"] == 1.0
    assert rows[f"best of {len(RATES)} rates, onecycle"]["steps_ratio"] == len(RATES)
    assert rows[f"best of {len(RATES)} rates, onecycle"]["ratio"] == 1.0


def test_a_training_with_the_suggested_rate_is_the_same_without_the_search():
    job = Job("digits", TINY, "adamw", ONECYCLE, seed=1, finds=True)
    found = carry_out(job, job.compose())
    given = Job("digits", TINY, "adamw", ONECYCLE, seed=1, lr=found.lr)
    assert carry_out(given, given.compose()).valid == pytest.approx(found.valid, rel=1e-5)


def test_nothing_is_trained_twice_and_nothing_is_lost(tiny, tmp_path, monkeypatch):
    file, words = tmp_path / "x.json", ("--tables", "finder", "--only", "sgd")
    left = itertools.count()

    def breaks_off(job, config):
        if next(left) == 2:
            raise KeyboardInterrupt
        return carry_out(job, config)

    monkeypatch.setattr(training_book, "carry_out", breaks_off)
    assert main(["bench", "learning_rate", *words, "--json", str(file)]) == 130
    first = json.loads(file.read_text())["trainings"]
    assert len(first) == 2
    monkeypatch.undo()
    monkeypatch.setattr(learning_rate, "PROBLEMS", {"digits": TINY})
    monkeypatch.setitem(learning_rate_tables.GRIDS, "sgd", RATES)
    tables, whole = measure(file, *words)
    assert whole[:2] == first
    assert len(whole) == len(RATES) + 1
    assert measure(file, *words) == (tables, whole)
    _, more = measure(file, *words, "--seeds", "2")
    assert more[: len(whole)] == whole
    assert len(more) == 2 * len(whole)


def test_another_commit_trains_anew_unless_told(tiny, tmp_path, capsys):
    file, words = tmp_path / "x.json", ("--tables", "finder", "--only", "sgd")
    _, trainings = measure(file, *words)
    found = json.loads(file.read_text())
    for entry in found["trainings"]:
        entry["made_with"]["revision"] = "another"
    file.write_text(json.dumps(found))
    _, same = measure(file, *words, "--any-commit")
    assert len(same) == len(trainings)
    assert "3 of 3 trainings were made by other commits." in capsys.readouterr().out
    _, both = measure(file, *words)
    assert len(both) == 2 * len(trainings)
    assert "other commits" not in capsys.readouterr().out


def test_a_file_of_something_else_is_refused(tiny, tmp_path, capsys):
    file = tmp_path / "x.json"
    file.write_text("{}")
    assert main(["bench", "learning_rate", "--json", str(file)]) == 2
    assert "is no file of this measurement" in capsys.readouterr().err
    assert file.read_text() == "{}"


def test_a_refused_search_is_no_good_rate():
    """The mean over seeds is infinite as soon as one of them has no rate; the median is of those that have."""
    asked = Measurement({"digits": TINY}, range(2))
    done = {job: Training("onecycle", job.lr, 20, 1.0, 0.5, 0.5) for job in finder_jobs(asked, ["adamw"])}
    known, refused = asked.found("digits", "adamw")
    done[known] = Training("onecycle", 0.1, 20, 1.0, 0.5, 0.5, Search(0.1, {}, None, "covered", 20, 1.0))
    done[refused] = Training("onecycle", None, 0, 0.0, math.inf, math.inf, Search(None, {}, "flat", "covered", 20, 1.0))
    (row,) = finder_rows(asked, ["adamw"], done)
    assert (row["suggestion"], row["suggestions"], row["valid"]) == (0.1, [0.1, None], math.inf)
    assert not row["within"]
    assert Training.from_dict(json.loads(json.dumps(done[refused].as_dict()))) == done[refused]


def test_the_good_rates_are_those_around_the_best():
    asked = Measurement({"digits": TINY}, [0])
    losses = dict(zip(GRIDS["adamw"], (1.0, 3.0, 1.09, 1.05, 0.999, 1.09, 1.2, 1.0, 2.0), strict=True))
    done = {job: Training("onecycle", job.lr, 20, 1.0, losses.get(job.lr, 0.9), 0.5)
            for job in finder_jobs(asked, ["adamw"])}  # fmt: skip
    (row,) = finder_rows(asked, ["adamw"], done)
    assert row["best_lr"] == GRIDS["adamw"][4]
    assert row["good"] == (GRIDS["adamw"][2], GRIDS["adamw"][5])
    assert row["ratio"] == pytest.approx(0.9 / 0.999)


def test_grids():
    assert {name: (rates[0], rates[-1]) for name, rates in GRIDS.items()} == {
        "adamw": (1e-5, 1e-1), "sgd": (3.2e-4, 3.2), "lion": (1e-6, 1e-2), "adafactor": (1e-4, 1.0),
        "sophia": (1e-6, 1e-2),
    }  # fmt: skip
    for rates in GRIDS.values():
        assert len(rates) == 9
        assert all(after / before == pytest.approx(10**0.5, rel=0.03) for before, after in itertools.pairwise(rates))


@pytest.mark.parametrize("name", WAYS)
def test_every_way_trains(name):
    way = WAYS[name]
    job = Job("digits", TINY, way.optimizer, way.schedule, 0, finds=way.finds)
    training = carry_out(job, job.compose())
    assert math.isfinite(training.valid)
    assert (training.search is not None) == way.finds


class Falling:
    """A driven schedule: every value that it is told lowers the rate a little."""

    def __init__(self):
        self.factor, self.told = 1.0, []

    def __call__(self, step, total, /):
        return Factors(self.factor)

    def observe(self, step, value):
        self.told.append((step, value))
        self.factor *= 0.9

    def state_dict(self):
        return {"factor": self.factor}

    def load_state_dict(self, state_dict, /):
        self.factor = state_dict["factor"]


def test_losses_drive_a_schedule_as_they_do_in_a_training(tmp_path):
    shapes, trained = [], []
    for steps in (take_steps, lambda run, plan: Trainer(run, plan, tmp_path, []).train()):
        run, plan = small_run("trainer.max_steps=25", "trainer.log_every=4", "model=mlp")
        shapes.append(Falling())
        run.scheduler = Scheduler(run.optimizer, Course(shapes[-1], metric="loss"), plan.total_steps)
        steps(run, plan)
        trained.append(weights(run))
    assert torch.equal(*trained)
    assert shapes[0].told == shapes[1].told[:24]  # the trainer tells of the last step, too
    assert len(shapes[0].told) == 24


def test_a_schedule_that_follows_evaluations_is_refused():
    run, plan = small_run("model=mlp")
    run.scheduler = Scheduler(run.optimizer, Course(Falling(), metric="eval"), plan.total_steps)
    with pytest.raises(InputError, match="follows evaluations"):
        take_steps(run, plan)


def test_the_plain_way_and_the_grid_are_always_there(tiny):
    asked = Measurement({"digits": TINY}, [0])
    done = {job: Training("onecycle", job.lr, 20, 2.0, 0.5, 0.5) for job in learning_rate_tables.way_jobs(asked, [])}
    first, last = way_rows(asked, [], done)
    assert (first["way"], first["steps_ratio"]) == ("default rate, cosine", 1.0)
    assert (last["steps"], last["cpu_s"], last["cpu_ratio"]) == (40, 4.0, 2.0)

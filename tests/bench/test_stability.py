"""The measurement of stability: its trainings, its statistics, its tables, its file."""

import dataclasses
import json
import math

import pytest

from ava.bench import stability_plans, stability_trainings
from ava.bench.faults import Fault, list_faults
from ava.bench.stability_plans import FAULTS, OTHER_FAULTS, Asked, with_clean
from ava.bench.stability_print import TABLES, print_tables
from ava.bench.stability_statistics import bootstrap, steps_to_recover, wilson
from ava.bench.stability_tables import (
    claim_rows,
    clean_rows,
    fault_rows,
    fault_totals,
    grid_rows,
    needed,
)
from ava.bench.stability_trainings import BASELINES, GUARDS, PROBLEMS, Outcome, Scenario, carry_out
from ava.bench.trainings import Problem
from ava.cli.main import main
from ava.errors import InputError
from tests.training.helpers import small_run

TINY = Problem(("task=digits", "model=mlp", "model.width=16", "data.augment=false"), 30, num_valid=64)
ASKED = Asked(["digits"], ["adamw"], ["clip", "clip_skip"], range(2), [one.name for one in list_faults()])


@pytest.fixture
def tiny(monkeypatch):
    """Problems of some milliseconds a training, and few rates."""
    for name in PROBLEMS:
        monkeypatch.setitem(stability_trainings.PROBLEMS, name, TINY)
    monkeypatch.setattr(stability_plans, "FACTORS", (1.0, 10.0))


def scenario(guard="clip", fault=None, seed=0, **said):
    return Scenario("digits", "adamw", 5e-3, guard, seed, fault, **said)


def test_every_kind_is_measured_both_ways():
    known = {one.name for one in list_faults()}
    assert {fault.kind for fault in FAULTS} == {fault.kind for fault in OTHER_FAULTS} == known


def test_held_out_faults_differ_from_the_others():
    for fault, other in zip(FAULTS, OTHER_FAULTS, strict=True):
        assert (fault.kind, fault.settled()) == (other.kind, dataclasses.replace(other, at=fault.at).settled()) or (
            fault.settled() != other.settled()
        )
        assert fault.settled() != other.settled()


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["adamw", "agmohd", "lion", "sgd"])
def test_rates_span_two_decades(problem, name):
    rates = stability_plans.rates(problem, name)
    assert rates[-1] / rates[0] == pytest.approx(100)
    assert rates == stability_plans.rates(problem, f"{name} state=factored")


def test_a_baseline_is_what_simple_methods_reach():
    run, _ = small_run("task=stdlib_lm", "data.context=64", "model=gpt", "model.layers=1", "model.heads=2",
                       "model.width=16")  # fmt: skip
    (unigram,) = [b.value for b in run.task.baselines() if b.name.startswith("unigram")]
    assert BASELINES["gpt"] == pytest.approx(unigram * math.log(2), abs=0.02)


@pytest.mark.parametrize("guard", GUARDS)
def test_every_guard_makes_a_configuration(guard):
    config = scenario(guard).compose()
    assert (config.recovery.name, config.trainer.clip) == (
        guard if guard in ("skip", "ladder") else "off",
        "none" if guard == "none" else "norm",
    )


def test_a_training_says_what_became_of_it(tiny):
    found = carry_out(scenario("clip_skip", Fault("nan_batch", at=5, duration=2)))
    assert (found.failure, found.attempts, found.happened) == (None, 30, 2)
    assert found.incidents == {"nonfinite_gradient/skip": 2}
    assert found.actions("skip") == 2
    assert [step for step, _ in found.losses] == list(range(1, 31))
    assert [math.isnan(loss) for _, loss in found.losses].count(True) == 2
    assert found.state == pytest.approx(8.0, rel=0.1)
    assert math.isfinite(found.valid)


@pytest.mark.parametrize("guard", ["none", "clip"])
def test_without_a_guard_the_first_nan_ends_it(tiny, guard):
    found = carry_out(scenario(guard, Fault("nan_batch", at=5)))
    assert "not finite" in found.failure
    assert found.valid == math.inf


def test_a_training_without_a_fault_is_the_same_with_and_without_skipping(tiny):
    assert carry_out(scenario("clip")).losses == carry_out(scenario("clip_skip")).losses


def test_a_scenario_survives_json():
    made = scenario(fault=Fault("lr_spike", at=9, size=3.0), precision="bf16")
    assert Scenario.from_dict(json.loads(json.dumps(made.as_dict()))) == made


def test_what_is_compared_with_stands_once():
    scenarios = stability_plans.faulty(ASKED)
    cleans = [one for one in with_clean(scenarios) if one.fault is None]
    assert len(scenarios) == len(FAULTS) * 4
    assert len(cleans) == 2 * 4  # alone and on several ranks
    held = stability_plans.faulty(dataclasses.replace(ASKED, held_out=True))
    assert {one.problem for one in held} == {"digits_mlp"}
    text = stability_plans.faulty(dataclasses.replace(ASKED, problems=["gpt"]))
    assert all(one.ranks == 1 for one in text)


def test_the_narrow_model_has_a_rate_of_its_own():
    assert stability_plans.rate("gpt_narrow", "adamw") == stability_plans.rate("gpt", "adamw state=factored") / 2


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (0, 0, 0.0, 1.0)],
    ids=["none", "all", "half", "no trials"],
)
def test_wilson(count, total, low, high):
    assert wilson(count, total) == pytest.approx((low, high), abs=1e-4)


def test_bootstrap_holds_the_mean_and_narrows():
    few, many = [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0] * 16
    assert bootstrap(few)[0] < 2.5 < bootstrap(few)[1]
    assert bootstrap(many)[1] - bootstrap(many)[0] < bootstrap(few)[1] - bootstrap(few)[0]
    assert bootstrap([2.0, 2.0]) == (2.0, 2.0)


def curve(count, bump=0.0, start=0, length=0):
    """A falling loss with a hash of noise, and a bump on some attempts."""
    noise = [0.02 * ((37 * i) % 11 - 5) / 5 for i in range(count)]
    return [
        (i + 1, 2.0 - i / count + noise[i] + (bump if start <= i + 1 < start + length else 0.0)) for i in range(count)
    ]


@pytest.mark.parametrize(
    ("bump", "length", "steps"), [(0.0, 0, 0), (3.0, 12, 8), (math.nan, 12, 8), (3.0, 200, None)],
    ids=["nothing", "eight after", "nan", "for good"],
)  # fmt: skip
def test_steps_to_recover_count_from_the_end_of_the_fault(bump, length, steps):
    found = steps_to_recover(curve(120, bump, 50, length), curve(120), 54, 0.03)
    assert found == steps if steps is None else abs(found - steps) <= 2


def test_steps_that_were_gone_back_over_count():
    clean = curve(120)
    lost = [(step, loss + 4.0) for step, loss in clean[50:60]]
    found = steps_to_recover(clean[:50] + lost + clean[50:], clean, 51, 0.03)
    assert abs(found - 10) <= 2


def test_fault_rows_judge_by_the_clean_training(tiny):
    one, other = scenario(fault=Fault("nan_batch")), scenario(fault=Fault("nan_batch", seed=1), seed=1)
    done = {
        one: Outcome(1.02, attempts=47, losses=curve(40)), one.clean: Outcome(1.0, attempts=40, losses=curve(40)),
        other: Outcome(math.inf, "ended"), other.clean: Outcome(1.0, losses=curve(40)),
    }  # fmt: skip
    (row,) = fault_rows([one, other], done)
    assert (row["n"], row["healed"], row["failures"], row["worst"]) == (2, 1, 1, math.inf)
    assert row["again"] == [7, 0]
    (total,) = fault_totals([row])
    assert (total["share"], total["recovery_never"], total["kinds"]) == (0.5, 1, "0 of 1")


def test_the_control_is_in_no_total():
    one = scenario(fault=Fault(stability_plans.CONTROL))
    rows = fault_rows([one], {one: Outcome(1.0), one.clean: Outcome(1.0)})
    assert (len(rows), fault_totals(rows)) == (1, [])


def test_grid_rows_count_failures_and_regret():
    rates = {lr: Scenario("gpt", "adamw", lr, "clip", 0) for lr in (1e-3, 1e-2, 1e-1)}
    done = {one: Outcome(valid) for one, valid in zip(rates.values(), (2.5, 2.4, math.inf), strict=True)}
    (row,) = grid_rows(list(rates.values()), done)
    assert (row["failed"], row["n"], row["best_lr"]) == (1, 3, 1e-2)
    assert row["regret_median"] == pytest.approx(0.1)
    assert row["regret_mean"] == pytest.approx((0.1 + 0.0 + 1.0) / 3)


def test_clean_rows_count_alarms_per_step():
    plain, guarded = scenario("clip"), scenario("ladder")
    seen = Outcome(1.01, attempts=2000, incidents={"persistent/rollback": 1, "loss_outlier/skip": 3, "advice/warn": 2})
    rows = clean_rows([plain, guarded], {plain: Outcome(1.0, attempts=2000), guarded: seen})
    assert [(row["back_10k"], row["skips_10k"], row["other"]) for row in rows] == [(0, 0, 0), (5, 15, 2)]
    assert rows[1]["over_clip"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("losses", "share"),
    [({0.5: 2.0, 0.8: 1.0, 1.0: 0.5}, 0.8), ({0.5: 2.0, 1.0: 0.0}, 0.75), ({0.5: 0.9}, 0.5), ({1.0: 3.0}, 1.1),
     ({0.5: math.inf, 0.8: 0.5}, 0.8)],
    ids=["measured", "between", "at once", "never", "beside a failure"],
)  # fmt: skip
def test_the_length_that_reaches_a_loss(losses, share):
    assert needed(losses, 1.0) == pytest.approx(share)


def test_adamw_needs_its_own_steps():
    done = {}
    for name, gain in (("adamw", 0.0), ("agmohd", 0.2)):
        for seed in range(3):
            for length in stability_plans.LENGTHS:
                done[Scenario("gpt", name, 1e-3, "clip", seed, length=length)] = Outcome(3.0 - length - gain, state=8.0)
    base, other = claim_rows(list(done), done)
    assert (base["share"], base["never"]) == (pytest.approx(1.0), 0)
    assert (other["share"], other["over_adamw"]) == (pytest.approx(0.8), pytest.approx(-0.2))


def test_the_command_measures_prints_and_goes_on(tiny, tmp_path, capsys):
    words = ["bench", "stability", "--tables", "faults", "--problems", "digits", "--optimizers", "adamw",
             "--guards", "clip_skip", "--seeds", "1", "--kinds", "nan_batch",
             "--json", str(tmp_path / "x.json"), "--markdown"]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "| clip_skip | adamw | nan_batch | digits |" in printed
    first = json.loads((tmp_path / "x.json").read_text())
    assert len(first["trainings"]) == 2
    assert set(first["tables"]) == {"faults", "fault totals"}
    assert main(words) == 0
    again = json.loads((tmp_path / "x.json").read_text())
    assert [t["cpu_s"] for t in again["trainings"]] == [t["cpu_s"] for t in first["trainings"]]


@pytest.mark.slow
def test_the_command_goes_over_a_grid(tiny, tmp_path):
    words = ["--problems", "digits", "--optimizers", "adamw", "--guards", "clip", "--seeds", "1", "--jobs", "2"]
    assert main(["bench", "stability", "--tables", "grid", *words, "--json", str(tmp_path / "x.json")]) == 0
    (row,) = json.loads((tmp_path / "x.json").read_text())["tables"]["grid"]
    assert row["n"] == 2


def test_costs_are_measured_in_turns(tiny, tmp_path, capsys):
    words = ["--problems", "digits", "--optimizers", "adamw", "--guards", "clip_skip", "--rounds", "2"]
    assert main(["bench", "stability", "--tables", "cost", *words, "--json", str(tmp_path / "x.json")]) == 0
    rows = json.loads((tmp_path / "x.json").read_text())["tables"]["cost"]
    assert [row["guard"] for row in rows] == ["clip", "clip_skip"]
    assert rows[0]["ratio"] == 1.0


def test_every_table_can_be_printed(capsys):
    clean = scenario("clip", seed=0)
    rows = clean_rows([clean], {clean: Outcome(1.0, attempts=100)})
    print_tables({"clean": rows, "grid": grid_rows([clean], {clean: Outcome(1.0)})}, markdown=True)
    printed = capsys.readouterr().out
    assert "**Clean trainings**" in printed
    assert printed.count("|---|") >= 2
    assert set(TABLES) == {"faults", "fault totals", "grid", "clean", "cost", "claims"}


@pytest.mark.parametrize("word", ["adamv", "prodigy"])
def test_an_optimizer_without_rates_is_refused(word):
    assert main(["bench", "stability", "--optimizers", word]) == 2


def test_another_file_is_refused(tmp_path, tiny):
    (tmp_path / "x.json").write_text("[]")
    assert main(["bench", "stability", "--json", str(tmp_path / "x.json")]) == 2


@pytest.mark.slow
@pytest.mark.xdist_group("ranks")
def test_a_rank_that_diverges_is_trained_on_several_processes():
    found = carry_out(scenario("clip", Fault("rank_divergence", at=5, rank=0), length=0.1, ranks=2))
    assert (found.attempts, found.happened, found.failure) == (30, 1, None)


def test_a_rank_that_is_not_there_is_refused(tiny):
    with pytest.raises(InputError, match="rank"):
        carry_out(scenario(fault=Fault("rank_divergence")))

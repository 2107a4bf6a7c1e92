"""What is advised, to whom, and when nothing is."""

from __future__ import annotations

import json
import math
import time

import pytest
import torch

import ava
from ava import registry
from ava.bench.faults import Fault, inject
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.reporting.metrics import MetricsLog
from ava.training.advice import Adviser, registered_rules
from ava.training.advice_rules.bad_samples import at_least
from ava.training.advice_rules.rate_too_high import rate_too_high
from ava.training.advice_rules.rate_too_low import rate_too_low
from ava.training.history import LENGTH, Advice, History, Setting
from ava.training.loop import Trainer
from tests.config.conftest import forgetful
from tests.training.helpers import small_run

__all__ = ["forgetful"]

DIGITS = ["logger=[]", "trainer.device=cpu", "trainer.max_steps=120", "trainer.log_every=10", "trainer.eval_every=30"]
RATES = {"adamw": 0.003, "sgd": 0.1, "lion": 0.001}
MODELS = {"convnet": ["model=convnet", "model.width=8"], "mlp": ["model=mlp", "model.width=128"]}
SETTING = Setting(total_steps=1000, lr=0.01, clip="norm", clip_norm=1.0, num_samples=1000, batch_size=32)


class Heard(Listener):
    def __init__(self):
        self.rows = []

    def on_incident(self, row):
        self.rows.append(row)

    @property
    def rules(self):
        return [row["rule"] for row in self.rows]


def adviser(tmp_path, setting=SETTING, rules=None):
    heard = Heard()
    listeners = [heard]
    listeners.append(Adviser(setting, tmp_path, listeners, IncidentLog(tmp_path / "incidents.jsonl"), rules))
    return listeners[1], heard


def row(step, **more):
    """A line of a run that goes well."""
    return {
        "step": step, "time": step * 0.05, "loss": 2.3 * 0.98 ** (step / 10), "lr": 0.01, "grad_norm": 0.8,
        "loader_wait": 0.05, "weight_change": 1e-3, "memory": 1e9,
    } | more  # fmt: skip


def told(adviser, rows):
    for one in rows:
        adviser.on_log(one)


def advised(run_dir):
    path = run_dir / "incidents.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [one for one in rows if one["kind"] == "advice"]


def text(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(
        "".join(f"{i} times {i} is {i * i}, and the square of {i + 1} is {(i + 1) ** 2}.\n" for i in range(900))
    )
    small = ["model=gpt", "model.layers=1", "model.width=32", "model.heads=2", "trainer.batch_size=8"]
    return ["task=language_model", "data=text", f"path={path}", "data.context=32", *small]


@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_goes_well_is_left_in_peace(tmp_path, model, optimizer):
    ava.train([*DIGITS, *MODELS[model], f"optimizer={optimizer}", f"optimizer.lr={RATES[optimizer]}",
               f"run_dir={tmp_path / 'run'}"])  # fmt: skip
    assert advised(tmp_path / "run") == []
    assert not (tmp_path / "run" / "stability.png").exists()


@pytest.mark.parametrize("optimizer", RATES)
def test_so_is_a_language_model(tmp_path, optimizer):
    ava.train([*DIGITS, *text(tmp_path), f"optimizer={optimizer}", f"optimizer.lr={RATES[optimizer]}",
               f"run_dir={tmp_path / 'run'}"])  # fmt: skip
    assert advised(tmp_path / "run") == []


@pytest.mark.parametrize("optimizer", RATES)
def test_a_rate_thirty_times_too_high_is_named_once_with_a_lower_one(tmp_path, optimizer):
    rate = 30 * RATES[optimizer]
    ava.train([*DIGITS, *MODELS["mlp"], f"optimizer={optimizer}", f"optimizer.lr={rate}",
               f"run_dir={tmp_path / 'run'}"])  # fmt: skip
    assert [one["rule"] for one in advised(tmp_path / "run")] == ["rate_too_high"]
    (one,) = advised(tmp_path / "run")
    assert rate / 50 < one["lr"] < rate / 2
    assert f"try optimizer.lr={one['lr']:.2g}" in one["text"]
    assert (tmp_path / "run" / "stability.png").read_bytes().startswith(b"\x89PNG")


BEST = {
    "convnet": {"adamw": 0.01, "sgd": 0.1, "lion": 0.003},
    "mlp": {"adamw": 0.003, "sgd": 0.1, "lion": 0.001},
}


@pytest.mark.slow
@pytest.mark.parametrize("times", [30, 100])
@pytest.mark.parametrize("optimizer", RATES)
@pytest.mark.parametrize("model", MODELS)
def test_to_follow_the_advice_on_a_high_rate_helps(tmp_path, model, optimizer, times):
    words = [*DIGITS, f"model={model}", f"optimizer={optimizer}"]
    bad = ava.train([*words, f"optimizer.lr={times * BEST[model][optimizer]}", f"run_dir={tmp_path / 'bad'}"])
    advice = advised(tmp_path / "bad")
    assert advice, "nothing was said"
    better = ava.train([*words, f"optimizer.lr={advice[0]['lr']}", f"run_dir={tmp_path / 'better'}"])
    assert better["best"]["eval/loss"]["value"] < bad["best"]["eval/loss"]["value"]


@pytest.mark.parametrize("optimizer", RATES)
def test_a_rate_that_is_far_too_low_is_named(tmp_path, optimizer):
    ava.train([*DIGITS, *MODELS["convnet"], f"optimizer={optimizer}", f"optimizer.lr={RATES[optimizer] / 3000}",
               f"run_dir={tmp_path / 'run'}"])  # fmt: skip
    (one,) = advised(tmp_path / "run")
    assert one["rule"] == "rate_too_low"
    assert one["lr"] > RATES[optimizer] / 300


BAD = {
    "rate_too_high": ({}, [row(s, loss=1.0 + s / 100, grad_norm=0.8 + s / 50) if s > 100 else row(s)
                           for s in range(10, 200, 10)]),
    "rate_too_low": ({"chance_loss": 2.3}, [row(s, loss=2.3, weight_change=1e-5) for s in range(10, 200, 10)]),
    "loader_starves": ({}, [row(s, loader_wait=0.6) for s in range(10, 100, 10)]),
    "vanishing": ({}, [row(s, loss=2.2, grad_norm=1.0 if s < 60 else 1e-4) for s in range(10, 150, 10)]),
    "memory_nearly_full": ({"memory_limit": 1.01e9}, [row(10)]),
    "loss_scale_falls": ({}, [row(s, **{"precision/overflows": s / 4, "precision/loss_scale": 2.0 ** (-s / 10)})
                              for s in range(10, 200, 10)]),
    "clipped_always": ({}, [row(s, grad_norm=9.0) for s in range(10, 300, 10)]),
    "stagnation": ({}, [row(s, loss=1.2 + 0.02 * (s * 7 % 30) / 30 + 0.98 ** (s / 2)) for s in range(10, 2500, 10)]),
}  # fmt: skip


@pytest.mark.parametrize("rule", BAD)
def test_lines_that_show_it_are_answered_once(tmp_path, rule):
    changes, rows = BAD[rule]
    one, heard = adviser(tmp_path, Setting(**(vars(SETTING) | changes)))
    told(one, [rows[0] | {"loss_first": 2.3}, *rows[1:]])
    assert heard.rules == [rule]
    assert [row["rule"] for row in IncidentLog(tmp_path / "incidents.jsonl").read()] == [rule]
    assert "try" in heard.rows[0]["text"]


def test_lines_that_are_well_are_not(tmp_path):
    one, heard = adviser(tmp_path)
    told(one, [row(step) for step in range(10, 5000, 10)])
    assert heard.rows == []


def test_a_layer_without_a_gradient_is_named(tmp_path):
    one, heard = adviser(tmp_path)
    for step in range(10, 200, 10):
        one.on_layers(step, {"head.weight": 0.5, "blocks.3.weight": 0.4 if step < 100 else 0.0})
        one.on_log(row(step))
    assert heard.rules == ["dead_layer"]
    assert "blocks.3.weight since step 100" in heard.rows[0]["text"]


def test_overfitting_is_told_with_the_step_to_end_at(tmp_path):
    one, heard = adviser(tmp_path)
    for step in range(10, 200, 10):
        one.on_log(row(step))
        one.on_eval({"step": step, "time": 0.0, "eval/loss": 1.0 + abs(step - 50) / 200})
    assert heard.rules == ["overfitting"]
    assert "trainer.max_steps=50" in heard.rows[0]["text"]


def test_samples_of_several_incidents_are_told(tmp_path):
    one, heard = adviser(tmp_path)
    log = IncidentLog(tmp_path / "incidents.jsonl")
    for step in (30, 60, 90):
        log.write(step, "nonfinite_gradient", "skip", samples=[17, *range(step * 10, step * 10 + 31)])
        one.on_incident({"step": step, "kind": "nonfinite_gradient", "action": "skip"})
        one.on_log(row(step))
    assert heard.rules == ["bad_samples"]
    assert "3 of 3 incidents: 17:" in heard.rows[0]["text"]


def test_it_is_said_again_after_a_long_silence_only(tmp_path):
    one, heard = adviser(tmp_path)
    waits = [0.6] * 20 + [0.0] * 20 + [0.6] * 20 + [0.0] * 60 + [0.6] * 20
    told(one, [row(10 * i, loader_wait=wait) for i, wait in enumerate(waits, 1)])
    assert [row["step"] for row in heard.rows] == [40, 1230]


def test_a_resumed_run_does_not_repeat_it(tmp_path):
    rows = [row(step, loader_wait=0.6) for step in range(10, 200, 10)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    first, heard = adviser(tmp_path)
    told(first, rows)
    assert heard.rules == ["loader_starves"]
    resumed, heard = adviser(tmp_path)
    resumed.on_start({"run_dir": str(tmp_path), "first_step": 191})
    told(resumed, [row(step, loader_wait=0.6) for step in range(200, 300, 10)])
    assert heard.rows == []


def test_a_rule_of_ones_own(tmp_path, forgetful):
    @registry.advice
    def mine(history, /, limit: float = 100.0):
        """Says that it is late."""
        return Advice("it is late: try to sleep") if history.step > limit else None

    assert "mine" in registered_rules()
    one, heard = adviser(tmp_path)
    told(one, [row(step) for step in range(10, 200, 10)])
    assert [(row["rule"], row["step"]) for row in heard.rows] == [("mine", 110)]


def history_of(*rows, **changes):
    history = History(Setting(**(vars(SETTING) | changes)))
    for one in rows:
        history.take(one)
    return history


def test_the_chance_of_many_incidents_is_known_and_remembered():
    assert at_least(3, 3, 0.5) == pytest.approx(0.125)
    assert at_least(2, 3, 0.5) == pytest.approx(0.5)
    assert at_least(1, 10, 1.0) == 1.0
    assert at_least(600, 1100, 0.5) == pytest.approx(0.5 * math.erfc(99 / math.sqrt(1100) / math.sqrt(2)), rel=0.02)


def test_two_thousand_incidents_cost_little(tmp_path):
    rule = registered_rules()["bad_samples"]
    history = history_of(row(10))
    for step in range(2000):
        history.note({"step": step, "samples": [17, *range(step, step + 31)]})
    assert "incidents: 17:" in rule(history).text
    began = time.process_time()
    for _ in range(1000):
        rule(history)
    assert time.process_time() - began < 0.1, "nothing new, nothing to compute"
    assert len(history.incidents) == LENGTH


NASTY = [0.0, -1.0, math.nan, math.inf, -math.inf, 1e308]


@pytest.mark.parametrize("first", NASTY)
@pytest.mark.parametrize("other", NASTY)
def test_no_number_makes_a_rule_fail(first, other):
    rules = registered_rules()
    history = History(Setting(**(vars(SETTING) | {"chance_loss": 2.3, "memory_limit": 1.0})))
    for number, step in enumerate(range(10, 400, 10)):
        value = (first, other)[number % 2]
        strange = {"loss": value, "grad_norm": other, "weight_change": first, "loss_mean": value, "loss_max": other}
        history.note({"step": step, "kind": "persistent", "action": "rollback", "lr_after": abs(first), "samples": [1]})
        history.look(step, {"a": first, "b": other})
        history.take(row(step, **strange) | ({"loss_first": first} if step == 10 else {}))
        history.evaluations.append({"step": step, "eval/loss": value})
        for rule in rules.values():
            rule(history)


def test_a_rate_of_zero_says_nothing_of_recovery():
    history = history_of(row(10, loss_first=2.3), row(20))
    for after in (0.005, 0.0):
        history.note({"step": 15, "kind": "persistent", "action": "rollback", "lr_after": after})
    assert "2 times less" in rate_too_high(history).text


def test_a_first_loss_of_zero_has_no_ratio():
    rows = [row(step, loss=0.0, weight_change=1e-6) for step in range(10, 200, 10)]
    history = history_of(rows[0] | {"loss_first": 0.0}, *rows[1:])
    assert rate_too_high(history) is None
    assert rate_too_low(history) is None


def test_a_rule_that_fails_is_named_once_and_dropped(tmp_path):
    def broken(history):
        raise KeyError("column")

    rules = {"broken": broken, "late": lambda history: Advice("late") if history.step > 20 else None}
    one, heard = adviser(tmp_path, rules=rules)
    with pytest.warns(UserWarning, match="'broken' failed .KeyError") as seen:
        told(one, [row(10), row(20), row(30)])
    assert len(seen) == 1
    assert heard.rules == ["late"]


def test_what_was_taken_back_is_forgotten_layers_too(tmp_path):
    one, heard = adviser(tmp_path)
    for step in (10, 20, 30, 40, 50):
        one.on_layers(step, {"w": 1.0 if step < 40 else 0.0, "x": 1.0})
        one.on_log(row(step))
        one.on_eval({"step": step, "eval/loss": 1.0})
    one.on_rollback(30)
    assert [look.step for look in one.history.layers] == [10, 20, 30]
    assert [line["step"] for line in one.history.evaluations] == [10, 20, 30]
    one.on_layers(40, {"w": 0.0, "x": 1.0})
    one.on_log(row(40))
    assert heard.rows == []


def test_a_long_run_with_an_incident_a_line_takes_bounded_time(tmp_path):
    one, _ = adviser(tmp_path, rules={})
    path = tmp_path / "incidents.jsonl"
    one.on_incident({"kind": "x"})

    def cost(steps):
        began = time.process_time()
        for step in steps:
            with path.open("a") as file:
                file.write(json.dumps({"step": step, "kind": "x", "action": "y", "samples": list(range(32))}) + "\n")
            one.on_incident({"kind": "x"})
            one.on_log(row(step))
        return time.process_time() - began

    early = cost(range(1, 501))
    cost(range(501, 3501))
    assert cost(range(3501, 4001)) < 3 * early
    assert one.history.num_incidents == 4000


def test_a_resumed_run_of_many_lines_starts_soon(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in range(1, 5001):
        log.write(row(step))
    log.close()
    asked = []
    one, _ = adviser(tmp_path, rules={"count": lambda history: asked.append(history.step)})
    one.on_start({"first_step": 5001})
    assert len(asked) == 2 * LENGTH
    assert one.history.num_lines == 5000
    assert one.history.first_step == 1


def trained(tmp_path, run, plan):
    """The advice to a real training."""
    heard, incidents = Heard(), IncidentLog(tmp_path / "incidents.jsonl")
    listeners = [heard]
    setting = Setting(total_steps=100, lr=0.001, num_samples=len(run.loader.split), batch_size=32)
    listeners.append(Adviser(setting, tmp_path, listeners, incidents))
    Trainer(run, plan, tmp_path, listeners, incidents).train()
    return [one for one in heard.rows if one["kind"] == "advice"]


def faulty(tmp_path, fault, *words):
    """The advice to a real training with a fault."""
    run, plan = small_run("model=mlp", "trainer.log_every=10", "trainer.eval_every=0", "trainer.max_steps=100", *words)
    with inject(run, fault):
        return trained(tmp_path, run, plan)


def test_both_displays_and_the_tracker_show_it(tmp_path, capsys):
    run_dir = tmp_path / "run"
    ava.train(
        [*DIGITS, *MODELS["mlp"], "optimizer=sgd", "optimizer.lr=3", "logger=[tensorboard]", f"run_dir={run_dir}"]
    )
    (one,) = advised(run_dir)
    assert f"advice  step {one['step']}: {one['text']}" in capsys.readouterr().out.replace("\n", " ").replace(
        "  ", "  "
    )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tb"))
    events.Reload()
    assert [event.step for event in events.Scalars("incident/advice")] == [one["step"]]
    assert one["text"].encode() in events.Tensors("incidents")[0].tensor_proto.string_val[0]


def test_a_frozen_layer_of_a_real_training_is_named(tmp_path):
    run, _ = small_run("model=mlp")
    place = next(name for name, _ in run.model.named_parameters())
    (one,) = faulty(tmp_path, Fault("frozen_layer", place=place))
    assert (one["rule"], one["step"]) == ("dead_layer", 70)
    assert f"no gradient reaches {place} since step 50" in one["text"]


def test_a_sample_that_is_garbage_is_named_after_three_epochs(tmp_path):
    run, plan = small_run(
        "model=mlp", "data.augment=false", "trainer.log_every=10", "trainer.eval_every=0", "trainer.max_steps=100",
        "health.on_nonfinite=skip",
    )  # fmt: skip
    run.loader.split.images[123] = torch.nan
    assert [one["rule"] for one in trained(tmp_path, run, plan)] == ["bad_samples"]
    told = [one for one in IncidentLog(tmp_path / "incidents.jsonl").read() if one["kind"] == "advice"]
    assert "3 of 3 incidents: 123:" in told[0]["text"]


@pytest.mark.parametrize("recovery", ["off", "skip"])
def test_garbage_in_other_samples_each_time_names_none(tmp_path, recovery):
    assert "bad_samples" not in [
        one["rule"] for one in faulty(tmp_path, Fault("corrupt_samples"), f"recovery={recovery}")
    ]

from __future__ import annotations

import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ava.registry import logger
from ava.reporting.tensorboard import tensorboard


def read(run_dir):
    events = EventAccumulator(str(run_dir / "tb"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def write(run_dir, first_step, steps):
    listener = tensorboard(run_dir, first_step)
    for step in steps:
        listener.on_log({"step": step, "time": 1.0, "loss": step / 2, "lr": 0.5})
    listener.on_eval({"step": step, "time": 1.0, "eval/accuracy": 0.75})
    return listener


def test_tensorboard_reads_the_same_numbers_under_the_same_names(tmp_path):
    listener = write(tmp_path, 1, [1, 2])
    expected = {"loss": [(1, 0.5), (2, 1.0)], "lr": [(1, 0.5), (2, 0.5)], "eval/accuracy": [(2, 0.75)]}
    assert read(tmp_path) == expected, "visible after an evaluation, while it trains"
    listener.close()
    listener.close()
    assert read(tmp_path) == expected


def test_a_resumed_run_leaves_no_repeats(tmp_path):
    write(tmp_path, 1, [1, 2, 3, 4]).close()
    write(tmp_path, 3, [3, 4, 5]).close()
    assert [step for step, _ in read(tmp_path)["loss"]] == [1, 2, 3, 4, 5]


def test_what_was_taken_back_is_void(tmp_path):
    listener = write(tmp_path, 1, [1, 2, 3, 4])
    listener.on_rollback(2)
    listener.on_log({"step": 3, "loss": 7.0})
    listener.close()
    assert read(tmp_path)["loss"][2:] == [(3, 7.0)]


def test_numbers_that_are_not_finite(tmp_path):
    listener = tensorboard(tmp_path, 1)
    listener.on_log({"step": 1, "loss": math.nan, "grad_norm": math.inf})
    listener.close()
    scalars = read(tmp_path)
    assert math.isnan(scalars["loss"][0][1])
    assert scalars["grad_norm"] == [(1, math.inf)]


@pytest.mark.parametrize("name", ["tensorboard"])
def test_it_is_registered_without_options(name):
    assert logger[name].defaults == {}
    assert logger[name].load() is tensorboard

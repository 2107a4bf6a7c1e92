"""The rise before a schedule."""

from __future__ import annotations

import itertools
import math

import pytest

from ava.errors import InputError
from ava.optimization import Factors, Scheduler, SchedulerFactory, Warmup
from ava.optimization.learning_rate.course import Course
from tests.optimization.learning_rate.curves import curve, sgd


def factors(num=7, total=10, name="constant", **options):
    """The first `num` factors of a course of warmup and schedule."""
    optimizer = sgd(1.0)
    scheduler = SchedulerFactory.create(name, optimizer, total, **options)
    return curve(optimizer, scheduler, num)[:, 0].tolist()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0.2, 0.4, 0.6, 0.8, 1, 1, 1]),
        ({"warmup_start": 0}, [0, 0.25, 0.5, 0.75, 1, 1, 1]),
        ({"warmup_start": 0.6}, [0.6, 0.7, 0.8, 0.9, 1, 1, 1]),
        ({"warmup_start": 1}, [1] * 7),
        ({"warmup_type": "exponential", "warmup_start": 1e-4}, [1e-4, 1e-3, 1e-2, 1e-1, 1, 1, 1]),
        ({"warmup_type": "exponential"}, [0.2, 0.2**0.75, 0.2**0.5, 0.2**0.25, 1, 1, 1]),
        (
            {"warmup_type": "cosine", "warmup_start": 0},
            [0, (1 - 0.5**0.5) / 2, 0.5, (1 + 0.5**0.5) / 2, 1, 1, 1],
        ),
        ({"warmup_type": "custom", "warmup_curve": [0, 0.1, 1]}, [0, 0.05, 0.1, 0.55, 1, 1, 1]),
        ({"warmup_type": "custom", "warmup_curve": [0.3, 0.3]}, [0.3, 0.3, 0.3, 0.3, 1, 1, 1]),
        ({"warmup_type": "custom", "warmup_curve": [2, 1.5, 1]}, [2, 1.75, 1.5, 1.25, 1, 1, 1]),
        ({"warmup_steps": 0.4}, [0.2, 0.4, 0.6, 0.8, 1, 1, 1]),
        ({"warmup_steps": 0.01}, [0.5, 1, 1, 1, 1, 1, 1]),
        ({"warmup_steps": 0}, [1] * 7),
        ({"warmup_steps": 0.0}, [1] * 7),
    ],
)
def test_forms(options, expected):
    assert factors(**{"warmup_steps": 4, **options}) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential"])
@pytest.mark.parametrize("steps", [1, 2, 9])
def test_every_form_rises_from_its_start_and_is_full_at_its_end(kind, steps):
    rise = factors(11, 20, warmup_steps=steps, warmup_type=kind, warmup_start=0.1)
    assert rise[0] == pytest.approx(0.1)
    assert all(before < after for before, after in itertools.pairwise(rise[: steps + 1]))
    assert rise[steps:] == [1.0] * (11 - steps)


def test_a_curve_can_be_a_function():
    optimizer = sgd(1.0)
    warmup = Warmup(4, "custom", curve=lambda share: share**2)
    scheduler = Scheduler(optimizer, Course(lambda step, total: Factors(1.0), warmup), 10)
    assert curve(optimizer, scheduler, 5)[:, 0].tolist() == [0, 1 / 16, 1 / 4, 9 / 16, 1]


def test_the_schedule_has_the_steps_that_are_left():
    whole = factors(8, 8, name="cosine")
    assert factors(12, 12, name="cosine", warmup_steps=4, warmup_start=0)[4:] == pytest.approx(whole)
    assert whole[4] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_it_rises_to_the_schedules_own_start():
    optimizer = sgd(momentum=0.9)
    scheduler = SchedulerFactory.create("onecycle", optimizer, 20, warmup_steps=4, warmup_start=0)
    rates, momenta = [], []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        scheduler.step()
    assert rates == pytest.approx([0, 0.001, 0.002, 0.003, 0.004])
    assert momenta == [0.95] * 5


def test_phase():
    scheduler = SchedulerFactory.create("wsd", sgd(), 10, warmup_steps=3, decay_steps=2)
    phases = []
    for _ in range(11):
        phases.append(scheduler.phase[0])
        scheduler.step()
    assert "".join(phases) == "wwwmmmmmccc"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"warmup_steps": 10}, r"warmup_steps=10: must be at least 0 and below total_steps=10"),
        ({"warmup_steps": 1.0}, r"warmup_steps=1\.0: must be at least 0 and below total_steps=10 \(10 steps\)"),
        ({"warmup_steps": -1}, r"warmup_steps=-1.*at least 0"),
        ({"warmup_steps": 1.5}, r"warmup_steps=1\.5.*at most 1"),
        ({"warmup_start": 1.1}, r"warmup_start=1\.1.*at most 1"),
        ({"warmup_type": "steps"}, r"warmup_type=steps.*'exponential'"),
        ({"warmup_type": "custom"}, r"warmup_type=custom: custom needs warmup_curve"),
        ({"warmup_curve": [0, 1]}, r"warmup_type=linear: only custom has"),
        ({"warmup_type": "custom", "warmup_curve": [1]}, r"warmup_curve=.*two ends"),
        ({"warmup_type": "custom", "warmup_curve": [0, -1]}, r"warmup_curve=.*at least 0"),
        ({"warmup_type": "custom", "warmup_curve": [0, 1], "warmup_start": 0.1}, r"warmup_start=0\.1.*curve"),
        ({"warmup_type": "exponential", "warmup_start": 0}, r"warmup_start=0.*exponential"),
    ],
)
def test_what_cannot_be_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        SchedulerFactory.create("linear", sgd(), 10, **options)

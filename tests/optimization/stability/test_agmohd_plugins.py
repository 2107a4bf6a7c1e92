"""Momentum schedules and responses of one's own, by name; what they remember is in the optimizer's state."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ava import registry
from ava.errors import InputError
from ava.optimization import AGMOHD, HindranceDetector
from ava.optimization.stability.acts import Act
from ava.registry import Decay, Fraction
from tests.config.conftest import forgetful  # noqa: F401

pytestmark = pytest.mark.usefixtures("forgetful")


def steps(optimizer, number):
    p = optimizer.param_groups[0]["params"][0]
    for step in range(number):
        p.grad = torch.randn(4, generator=torch.Generator().manual_seed(step), dtype=p.dtype)
        optimizer.step()
    return p


def test_a_momentum_schedule_of_ones_own():
    @registry.momentum_schedule(name="my_half")
    def half(hindrance, /, share: Fraction = 0.6):
        """Always the same share."""
        return share

    optimizer = AGMOHD([nn.Parameter(torch.zeros(4))], momentum_schedule="my_half")
    steps(optimizer, 2)
    assert optimizer.get_training_stats()["momentum"] == pytest.approx(0.54)


def test_one_may_look_ahead():
    @registry.momentum_schedule(name="my_ahead", looks_ahead=True)
    def ahead(hindrance, /):
        """All of it."""
        return 1.0

    mine, theirs = (
        steps(AGMOHD([nn.Parameter(torch.zeros(4))], momentum_schedule=name), 8) for name in ("my_ahead", "nesterov")
    )
    assert torch.equal(mine, theirs)


class Tiring:
    """The rate falls from step to step."""

    def __init__(self, /, decay: Decay = 0.5) -> None:
        self.decay, self.memory = decay, {"left": 1.0}

    def __call__(self, verdict, update_factor, /):
        self.memory["left"] = self.memory["left"] * self.decay
        return Act(rate=self.memory["left"])


def test_what_a_response_remembers_is_in_the_state_dict():
    registry.response(name="my_tiring")(Tiring)
    optimizer, other = (AGMOHD([nn.Parameter(torch.zeros(4))], responses=("my_tiring",)) for _ in range(2))
    steps(optimizer, 3)
    assert optimizer.get_training_stats()["rate_factor"] == 0.125
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(other, 1)
    assert other.get_training_stats()["rate_factor"] == 0.0625


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (Act(rate=0.5), {"lr": 5e-4, "skipped_steps": 0}),
        (Act(gradient=0.5), {"gradient_factor": 0.5, "clipped_steps": 3}),
        (Act(skip=1.0), {"step": 0, "skipped_steps": 3}),
    ],
    ids=["rate", "gradient", "skip"],
)
def test_what_a_response_can_do(act, expected):
    @registry.response(name="my_response")
    def respond(verdict, update_factor, /):
        """What it is told."""
        return act

    optimizer = AGMOHD([nn.Parameter(torch.zeros(4))], responses=("my_response",))
    p = steps(optimizer, 3)
    stats = optimizer.get_training_stats()
    assert {key: stats[key] for key in expected} == pytest.approx(expected)
    assert p.any() == (not act.skip)


@pytest.mark.parametrize("name", registry.response.names())
def test_every_response_trains(name):
    p = steps(AGMOHD([nn.Parameter(torch.zeros(4))], responses=(name,)), 20)
    assert p.isfinite().all()
    assert p.any()


@pytest.mark.parametrize("name", registry.momentum_schedule.names())
@pytest.mark.parametrize("hindrance", [0.0, 0.3, 1.0])
def test_every_momentum_schedule_takes_numbers_and_tensors(name, hindrance):
    schedule = registry.momentum_schedule[name].load()
    number, tensor = schedule(hindrance), schedule(torch.tensor(hindrance, dtype=torch.float64))
    assert 0 <= number <= 1
    assert float(tensor) == number


@pytest.mark.parametrize(
    ("said", "severity"), [(7.0, 1.0), (-3.0, 0.0), (math.nan, 0.0), (True, 1.0), (0.3, 0.3)], ids=str
)  # fmt: skip
@pytest.mark.parametrize("way", ["numbers", "tensors"])
def test_a_severity_is_a_share(said, severity, way):
    @registry.detector(name="my_detector")
    def mine(seen, /):
        """What it is told."""
        return torch.tensor(float(said), dtype=torch.float64) if way == "tensors" else said

    detector = HindranceDetector(detectors=["my_detector"])
    detector._memory.always_tensors = way == "tensors"
    verdict = detector.judge(1.0)
    assert [float(verdict.hindrance), float(verdict.causes["my_detector"])] == pytest.approx([severity, severity])


def test_a_detector_that_says_no_number_is_named():
    @registry.detector(name="my_talker")
    def mine(seen, /):
        """Text."""
        return "much"

    with pytest.raises(InputError, match="detector my_talker has to return a number"):
        HindranceDetector(detectors=["my_talker"]).judge(1.0)


@pytest.mark.parametrize(
    ("said", "momentum"), [(5.0, 0.9), (-3.0, 0.5), (math.nan, 0.9), (torch.tensor(5.0), 0.9)], ids=str
)  # fmt: skip
def test_what_is_left_of_momentum_is_a_share(said, momentum):
    @registry.momentum_schedule(name="my_wild")
    def wild(hindrance, /):
        """What it is told."""
        return said

    optimizer = AGMOHD([nn.Parameter(torch.zeros(4))], momentum_schedule="my_wild")
    assert steps(optimizer, 3).isfinite().all()
    stats = optimizer.get_training_stats()
    assert stats["momentum"] == pytest.approx(momentum)
    assert 0 <= stats["momentum_factor"] <= 1


@pytest.mark.parametrize("said", [None, 0.5, Act(rate=-1.0), Act(gradient=-1.0), Act(rate=math.nan), Act(skip="no"),
                                  Act(rate=torch.tensor(-1.0))], ids=str)  # fmt: skip
def test_a_response_that_cannot_be_followed_is_named(said):
    @registry.response(name="my_wrong")
    def wrong(verdict, update_factor, /):
        """What it is told."""
        return said

    with pytest.raises(InputError, match="response my_wrong"):
        steps(AGMOHD([nn.Parameter(torch.zeros(4))], responses=("my_wrong",)), 1)


def test_a_response_needs_the_detector_that_it_asks_for():
    @registry.response(name="my_asking")
    def asking(verdict, update_factor, /):
        """Half the rate in an oscillation."""
        return Act(rate=1 - 0.5 * verdict.causes["oscillation"])

    with pytest.raises(InputError, match="my_asking asks for the detector 'oscillation'"):
        steps(AGMOHD([nn.Parameter(torch.zeros(4))], responses=["my_asking"], detectors=["explosion"]), 1)


def test_parts_take_options():
    registry.response(name="my_tiring")(Tiring)
    registry.detector(name="my_eager")(Eager)
    options = {"responses": {"my_tiring": {"decay": 0.25}, "skip": None}, "detectors": {"my_eager": {"severity": 0.4}}}
    optimizer = AGMOHD([nn.Parameter(torch.zeros(4))], **options)
    steps(optimizer, 2)
    stats = optimizer.get_training_stats()
    assert (stats["rate_factor"], stats["hindrance"]) == (0.0625, pytest.approx(0.4))
    other = AGMOHD([nn.Parameter(torch.zeros(4))], **options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(other, 1)
    assert other.get_training_stats()["rate_factor"] == 0.25**3


class Eager:
    """Always the same."""

    def __init__(self, /, severity: Fraction = 0.5) -> None:
        self.severity = severity

    def __call__(self, seen, /):
        return self.severity


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"responses": {"skip": {"limits": 3}}}, "limit"),
        ({"responses": {"skip": {"limit": 0}}}, "responses.skip.limit=0: .*above 0"),
        ({"responses": {"skip": 3}}, "responses.skip"),
        ({"detectors": {"explosion": 3}}, "detectors.explosion"),
        ({"detectors": {"explosion": {"x": 3}}}, "explosion"),
    ],
    ids=["unknown", "value", "no-mapping", "no-mapping-detector", "unknown-detector"],
)
def test_options_that_a_part_has_not_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        AGMOHD([nn.Parameter(torch.zeros(4))], **options)

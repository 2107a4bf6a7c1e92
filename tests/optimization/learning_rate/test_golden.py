"""Every schedule over six steps, worked out by hand."""

from __future__ import annotations

import math

import pytest

from ava.optimization import course
from tests.optimization.learning_rate.curves import PURE

HALF = 0.5**0.5
GOLDEN = [
    ("constant", {}, [1] * 7),
    ("linear", {}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
    ("linear", {"end_factor": 0.4}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
    ("cosine", {}, [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]),
    ("cosine", {"floor": 0.5}, [(3 + math.cos(math.pi * k / 6)) / 4 for k in range(7)]),
    ("onecycle", {"pct_start": 2 / 6}, [0.04, 1.0, 0.853568, 0.500050, 0.146532, 0.0001, 0.0001]),
    ("cosine_restarts", {"T_0": 2}, [1, 0.5, 1, 0.5, 1, 0.5, 0]),
    ("cosine_restarts", {"T_0": 1 / 3}, [1, 0.5, 1, 0.5, 1, 0.5, 0]),
    ("cosine_restarts", {"T_0": 0.25}, [1, 0.25, 0.75, 1, 0.25, 0.75, 0]),
    (
        "cosine_restarts", {"T_0": 1, "T_mult": 2, "floor": 0.2, "peak_decay": 0.5},
        [1, 0.5, 0.35, 0.25, 0.225 + 0.025 * HALF, 0.225, 0.225 - 0.025 * HALF],
    ),
    ("polynomial", {}, [k * k / 36 for k in range(6, -1, -1)]),
    ("polynomial", {"power": 1, "floor": 0.4}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
    ("step", {"step_size": 2}, [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001]),
    ("step", {"step_size": 0.5, "gamma": 0.5}, [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    ("multistep", {"milestones": [2, 0.5]}, [1, 1, 0.1, 0.01, 0.01, 0.01, 0.01]),
    ("multistep", {"milestones": [], "gamma": 0.5}, [1] * 7),
    ("multistep", {"milestones": [0, 4, 9], "gamma": 0.5}, [0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]),
    ("exponential", {"end_factor": 1e-6}, [10**-k for k in range(7)]),
    ("exponential", {"gamma": 0.5}, [0.5**k for k in range(7)]),
    ("triangular", {"step_size_up": 2, "step_size_down": 1}, [0.25, 0.625, 1, 0.25, 0.625, 1, 0.25]),
    ("triangular", {"step_size_up": 0, "step_size_down": 3, "base_factor": 0}, [1, 2 / 3, 1 / 3, 1, 2 / 3, 1 / 3, 1]),
    (
        "triangular", {"step_size_up": 2, "step_size_down": 1, "mode": "triangular2"},
        [0.25, 0.625, 1, 0.25, 0.4375, 0.625, 0.25],
    ),
    (
        "triangular", {"step_size_up": 1, "mode": "exp_range", "gamma": 0.5, "base_factor": 0},
        [0, 1 / 2, 0, 1 / 8, 0, 1 / 32, 0],
    ),
    ("inverse_sqrt", {"timescale": 2}, [(2 / (2 + k)) ** 0.5 for k in range(7)]),
    ("wsd", {"decay_steps": 3}, [1, 1, 1, 1, 2 / 3, 1 / 3, 0]),
    ("wsd", {"decay_steps": 0.5, "decay": "cosine", "floor": 0.2}, [1, 1, 1, 1, 0.8, 0.4, 0.2]),
    ("wsd", {"decay_steps": 4, "decay": "sqrt"}, [1, 1, 1, 0.5, 1 - HALF, 1 - 0.75**0.5, 0]),
    ("wsd", {"decay_steps": 9}, [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
    ("wsd", {"decay_steps": 0}, [1] * 7),
    ("rex", {}, [1, 10 / 11, 4 / 5, 2 / 3, 1 / 2, 2 / 7, 0]),
    ("rex", {"floor": 0.5}, [1, 21 / 22, 9 / 10, 5 / 6, 3 / 4, 9 / 14, 0.5]),
    ("noisy", {"noise_std": 0}, [(1 + math.cos(math.pi * k / 6)) / 2 for k in range(7)]),
    ("noisy", {"base": "linear", "noise_limit": 0, "floor": 0.4}, [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4]),
    ("noisy", {"base": "constant", "noise_range": [0.3, 0.5], "seed": 1}, [1, 1, 1.1000805, 1.0590666, 1, 1, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "expected"), GOLDEN)
def test_six_steps_and_the_end(name, options, expected):
    shape = course(name, **options).shape
    assert [shape(step, 6).lr for step in range(7)] == pytest.approx(expected, abs=1e-6)


def test_every_schedule_has_a_row():
    assert {name for name, _, _ in GOLDEN} == set(PURE)


def test_momentum_of_the_cycles():
    shape = course("triangular", step_size_up=2, base_momentum=0.5, max_momentum=0.9, mode="triangular2").shape
    momenta = [shape(step, 9).momentum for step in range(8)]
    assert momenta == pytest.approx([0.9, 0.7, 0.5, 0.7, 0.9, 0.8, 0.7, 0.8])
    assert course("triangular", cycle_momentum=False).shape(3, 9).momentum is None


def test_onecycle_ends():
    """The first rate is peak / div_factor, the last peak / final_div_factor."""
    shape = course("onecycle", div_factor=25.0, final_div_factor=1e4).shape
    factors = [shape(step, 100) for step in range(100)]
    rates, momenta = [f.lr for f in factors], [f.momentum for f in factors]
    assert (rates[0], max(rates), rates[29], rates[99]) == pytest.approx((1 / 25, 1.0, 1.0, 1e-4))
    assert (momenta[0], min(momenta), momenta[99]) == pytest.approx((0.95, 0.85, 0.95))
    assert course("onecycle", cycle_momentum=False).shape(3, 10).momentum is None


@pytest.mark.parametrize(
    ("name", "options", "phases"),
    [
        ("cosine", {}, "mmmmmmmmmmm"),
        ("onecycle", {"pct_start": 0.3}, "wwmmmmmmmmm"),
        ("onecycle", {"pct_start": 0.0}, "mmmmmmmmmmm"),
        ("wsd", {"decay_steps": 3}, "mmmmmmmcccc"),
        ("wsd", {"decay_steps": 0}, "mmmmmmmmmmm"),
    ],
)
def test_phases(name, options, phases):
    shape = course(name, **options).shape
    assert "".join(shape(step, 10).phase[0] for step in range(11)) == phases

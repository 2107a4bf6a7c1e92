"""What makes single schedules special."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest

from ava.errors import InputError
from ava.optimization import SchedulerFactory, course
from tests.optimization.learning_rate.curves import sgd

DECAYS = ["linear", "cosine", "polynomial", "step", "multistep", "exponential", "inverse_sqrt", "wsd", "rex"]


@pytest.mark.parametrize("name", DECAYS)
def test_a_decay_never_rises(name):
    shape = course(name).shape
    factors = [shape(step, 97).lr for step in range(98)]
    assert factors[0] == 1.0
    assert all(before >= after for before, after in itertools.pairwise(factors))
    assert factors[-1] < 0.5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("constant", {}), ("wsd", {"decay_steps": 30}), ("inverse_sqrt", {"timescale": 10}), ("step", {"step_size": 9}),
        ("exponential", {"gamma": 0.9}), ("cosine_restarts", {"T_0": 9, "T_mult": 2}),
        ("triangular", {"step_size_up": 8}), ("multistep", {"milestones": (3, 50)}),
    ],
)  # fmt: skip
def test_a_training_can_be_extended(name, options):
    """With lengths in steps the rates of the first 70 steps do not depend on the length of the training."""
    shape = course(name, **options).shape
    assert [shape(step, 100) for step in range(70)] == [shape(step, 10_000) for step in range(70)]


@pytest.mark.parametrize("total", [7, 10, 99, 1000, 1001])
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 1 / 3, 0.5, 1.0])
def test_restarts_by_share_are_so_many_and_end_low(share, total):
    """No cycle of a single step is left over at the end, whatever the length."""
    shape = course("cosine_restarts", T_0=share).shape
    factors = [shape(step, total).lr for step in range(total + 1)]
    rises = sum(after > before for before, after in itertools.pairwise(factors))
    assert factors[total] == 0
    assert rises == min(round(1 / share), total) - 1 or share * total < 2


def test_restarts_of_growing_cycles():
    shape = course("cosine_restarts", T_0=10, T_mult=3, peak_decay=0.5).shape
    factors = [shape(step, 200).lr for step in range(200)]
    assert [step for step in range(200) if step == 0 or factors[step] > factors[step - 1]] == [0, 10, 40, 130]
    assert [factors[step] for step in (0, 10, 40, 130)] == [1, 0.5, 0.25, 0.125]


def test_the_transformer_paper():
    """Its rate min(n ** -0.5, n * W ** -1.5), over the peak."""
    W = 40
    scheduler = SchedulerFactory.create("inverse_sqrt", sgd(1.0), 400, timescale=W, warmup_steps=W, warmup_start=0)
    for step in range(1, 400):
        scheduler.step()
        assert scheduler.get_last_lr()[0] == pytest.approx(W**0.5 * min(step**-0.5, step * W**-1.5))


class TestNoise:
    @staticmethod
    def noise(num=20_000, **options):
        shape = course("noisy", base="constant", **options).shape
        return [shape(step, num).lr - 1 for step in range(1, num + 1)]

    @pytest.mark.parametrize(("std", "limit"), [(0.1, 0.67), (0.2, 0.2), (1.0, 0.67)])
    def test_moments_are_those_of_a_cut_normal(self, std, limit):
        noise = self.noise(noise_std=std, noise_limit=limit, seed=3)
        normal, edge = statistics.NormalDist(), limit / std
        inside = 1 - 2 * normal.cdf(-edge)
        expected = std * math.sqrt(1 - 2 * edge * normal.pdf(edge) / inside)
        assert abs(statistics.fmean(noise)) < 4 * expected / math.sqrt(len(noise))
        assert statistics.pstdev(noise) == pytest.approx(expected, rel=0.03)

    def test_neighbours_are_independent(self):
        noise = self.noise()
        assert abs(statistics.correlation(noise[:-1], noise[1:])) < 4 / math.sqrt(len(noise))

    @pytest.mark.parametrize("std", [0.5, 100.0])
    @pytest.mark.parametrize("limit", [0.3, 1.0])
    def test_bounds(self, std, limit):
        noise = self.noise(5000, noise_std=std, noise_limit=limit)
        assert -limit <= min(noise) < -0.9 * limit
        assert 0.9 * limit < max(noise) <= limit

    def test_seeds_differ_and_draws_are_held(self):
        assert self.noise(50, seed=1) == self.noise(50, seed=1) != self.noise(50, seed=2)
        held = [0.0, *self.noise(50, hold_steps=10)]
        assert len(set(held[1:10])) == 1
        assert len({held[step] for step in range(5, 50, 10)}) == 5

    def test_where_it_acts(self):
        noise = self.noise(100, noise_range=(0.25, 0.5))
        assert [step for step, e in enumerate(noise, start=1) if e != 0] == list(range(25, 51))

    def test_a_warmup_rises_to_the_base(self):
        scheduler = SchedulerFactory.create("noisy", sgd(1.0), 10, warmup_steps=4)
        assert [values[0]["lr"] for values in map(scheduler.at, range(5))] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("cosine_restarts", {"T_0": 0}, r"T_0=0: must be above 0"),
        ("cosine_restarts", {"T_0": 1.5}, r"T_0=1\.5.*at most 1"),
        ("cosine_restarts", {"T_mult": 0}, r"T_mult=0.*above 0"),
        ("cosine_restarts", {"T_mult": 1.5}, r"T_mult=1\.5.*whole"),
        ("polynomial", {"power": 0}, r"power=0.*above 0"),
        ("step", {"step_size": 0}, r"step_size=0: must be above 0"),
        ("step", {"gamma": 1.1}, r"gamma=1\.1.*at most 1"),
        ("multistep", {"milestones": (0.75, 0.5)}, r"milestones=.*must increase, but 0\.5 comes after 0\.75"),
        ("multistep", {"milestones": (5, 5)}, r"milestones=.*must increase"),
        ("multistep", {"milestones": (9, 0.5)}, r"milestones=.*0\.5 comes after 9 in a training of 10 steps"),
        ("multistep", {"milestones": (-3,)}, r"milestones=.*at least 0"),
        ("exponential", {"gamma": 0.0}, r"gamma=0.*above 0"),
        ("exponential", {"end_factor": 0}, r"end_factor=0.*above 0"),
        ("triangular", {"step_size_up": 0}, r"step_size_up=0: must be above 0"),
        ("triangular", {"mode": "square"}, r"mode=square.*exp_range"),
        ("triangular", {"max_momentum": 1.0}, r"max_momentum=1.*below 1"),
        ("inverse_sqrt", {"timescale": 0}, r"timescale=0: must be above 0"),
        ("wsd", {"decay": "1-sqrt"}, r"decay=1-sqrt.*'sqrt'"),
        ("noisy", {"noise_range": (0.9, 0.4)}, r"noise_range=.*must begin before it ends"),
        ("noisy", {"seed": 2**63}, r"seed=.*below"),
        ("noisy", {"noise_limit": 1.1}, r"noise_limit=1\.1.*at most 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_when_it_is_built(name, options, says):
    with pytest.raises(InputError, match=says):
        SchedulerFactory.create(name, sgd(), 10, **options)

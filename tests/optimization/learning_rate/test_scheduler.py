"""A schedule on an optimizer: groups, other hyperparameters, skipped steps, states."""

from __future__ import annotations

import math

import pytest
import torch

from ava.errors import InputError
from ava.optimization import Factors, Scheduler, SchedulerFactory, course
from tests.optimization.learning_rate.curves import curve, sgd


def adamw(**options):
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3, **options)


class TestMomentum:
    def test_the_first_beta_moves(self):
        optimizer = adamw(betas=(0.9, 0.98))
        scheduler = SchedulerFactory.create("onecycle", optimizer, 10)
        assert optimizer.param_groups[0]["betas"] == (0.95, 0.98)
        for _ in range(2):
            scheduler.step()
        assert optimizer.param_groups[0]["betas"] == (pytest.approx(0.85), 0.98)

    @pytest.mark.parametrize("build", [sgd, lambda: torch.optim.Adagrad([torch.nn.Parameter(torch.zeros(1))])])
    @pytest.mark.parametrize("name", ["onecycle", "triangular"])
    def test_what_has_none_is_left_alone(self, build, name):
        optimizer = build()
        before = {k: v for k, v in optimizer.param_groups[0].items() if k != "lr"}
        SchedulerFactory.create(name, optimizer, 10).step()
        after = optimizer.param_groups[0]
        assert all(after[key] == value for key, value in before.items() if key != "params")


class TestAlso:
    """Schedules of other hyperparameters."""

    def test_they_multiply_what_each_group_was_given(self):
        optimizer = sgd(weight_decay=0.4)
        optimizer.param_groups[1]["weight_decay"] = 0.2
        scheduler = SchedulerFactory.create("constant", optimizer, 4, also={"weight_decay": "linear"})
        decays = curve(optimizer, scheduler, 5, key="weight_decay")
        torch.testing.assert_close(decays[:, 0], torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64))
        torch.testing.assert_close(decays[:, 1], decays[:, 0] / 2)
        assert scheduler.get_last_lr() == [0.1, 0.01]

    def test_betas(self):
        optimizer = adamw(betas=(0.8, 0.9))
        also = {"beta1": {"name": "linear", "end_factor": 0.5}, "beta2": {"name": "wsd", "decay_steps": 2}}
        scheduler = SchedulerFactory.create("constant", optimizer, 4, also=also)
        betas = []
        for _ in range(5):
            betas.append(optimizer.param_groups[0]["betas"])
            scheduler.step()
        # After the last step they stay: exactly 0 is no value that every optimizer accepts.
        assert [b for b, _ in betas] == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.5])
        assert [b for _, b in betas] == pytest.approx([0.9, 0.9, 0.9, 0.45, 0.45])

    def test_a_warmup_of_their_own(self):
        optimizer = sgd(weight_decay=0.1)
        also = {"weight_decay": {"name": "constant", "warmup_steps": 2, "warmup_start": 0}}
        scheduler = SchedulerFactory.create("linear", optimizer, 4, also=also)
        decays = curve(optimizer, scheduler, 4, key="weight_decay")[:, 0].tolist()
        assert decays == pytest.approx([0, 0.05, 0.1, 0.1])

    @pytest.mark.parametrize(
        ("also", "says"),
        [
            ({"lr": "cosine"}, r"also=lr: is what the schedule itself moves"),
            ({"weight_decai": "cosine"}, r"also=weight_decai.*`weight_decay`"),
            ({"beta3": "cosine"}, r"also=beta3"),
            ({"weight_decay": "cosin"}, r"also\.weight_decay=cosin.*`cosine`"),
            ({"weight_decay": {"floor": 0.1}}, r"also\.weight_decay=.*name and options"),
            ({"weight_decay": 0.1}, r"also\.weight_decay=0\.1"),
            ({"weight_decay": {"name": "cosine", "floor": 2}}, r"also\.weight_decay\.floor=2.*at most 1"),
            ({"weight_decay": {"name": "cosine", "also": {}}}, r"also\.weight_decay\.also"),
            ({"beta1": {"name": "noisy", "base": "constant", "noise_std": 0.5}}, r"also\.beta1.*below 1"),
        ],
    )
    def test_what_cannot_be_is_refused(self, also, says):
        with pytest.raises(InputError, match=says):
            SchedulerFactory.create("constant", adamw(weight_decay=0.1), 50, also=also)


class TestGroups:
    """Groups with a schedule of their own."""

    def build(self, said, **options):
        optimizer = sgd(1.0, 2.0)
        optimizer.param_groups[1]["scheduler"] = said
        return optimizer, SchedulerFactory.create("linear", optimizer, 4, **options)

    @pytest.mark.parametrize(
        ("said", "expected"),
        [
            ("constant", [2.0, 2.0, 2.0, 2.0, 2.0]),
            ({"name": "step", "step_size": 2, "gamma": 0.5}, [2.0, 2.0, 1.0, 1.0, 0.5]),
        ],
    )
    def test_they_follow_it(self, said, expected):
        rates = curve(*self.build(said), 5)
        assert rates.T.tolist() == [[1.0, 0.75, 0.5, 0.25, 0.0], expected]

    def test_the_common_warmup_holds_unless_they_say_otherwise(self):
        common, own = "constant", {"name": "constant", "warmup_steps": 0}
        assert curve(*self.build(common, warmup_steps=3), 4)[:, 1].tolist() == [0.5, 1.0, 1.5, 2.0]
        assert curve(*self.build(own, warmup_steps=3), 4)[:, 1].tolist() == [2.0] * 4

    def test_momentum_is_theirs_too(self):
        optimizer = sgd(momentum=0.5)
        optimizer.param_groups[1]["scheduler"] = "onecycle"
        SchedulerFactory.create("cosine", optimizer, 4)
        assert [group["momentum"] for group in optimizer.param_groups] == [0.5, 0.95]

    @pytest.mark.parametrize(
        ("said", "says"),
        [
            ("cosin", r"param_groups\[1\]\.scheduler=cosin.*`cosine`"),
            ({"name": "cosine", "flor": 1}, r"param_groups\[1\]\.scheduler=.*`floor`"),
            (3, r"param_groups\[1\]\.scheduler=3.*name"),
        ],
    )
    def test_what_cannot_be_is_refused(self, said, says):
        with pytest.raises(InputError, match=says):
            self.build(said)

    def test_a_late_group_gets_its_own_base(self):
        optimizer = sgd()
        scheduler = SchedulerFactory.create("linear", optimizer, 4)
        scheduler.step()
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 8.0})
        scheduler.step()
        assert scheduler.get_last_lr() == [0.05, 0.005, 4.0]


class TestSkippedSteps:
    @pytest.mark.parametrize("yes", [True, torch.tensor(True), torch.tensor(1.0)])
    @pytest.mark.parametrize("no", [False, torch.tensor(False)])
    def test_the_schedule_stays_where_it_is(self, yes, no):
        scheduler = SchedulerFactory.create("linear", sgd(1.0), 4)
        rates = []
        for skipped in (no, yes, yes, no):
            scheduler.step(skipped)
            rates.append(scheduler.get_last_lr()[0])
        assert rates == [0.75, 0.75, 0.75, 0.5]
        assert scheduler.state_dict()["step"] == 2

    def test_it_is_remembered_from_the_state_on(self):
        scheduler = SchedulerFactory.create("linear", sgd(1.0), 4)
        scheduler.step(True)
        scheduler.step()
        resumed = SchedulerFactory.create("linear", sgd(1.0), 4)
        resumed.load_state_dict(scheduler.state_dict())
        assert resumed.get_last_lr() == [0.75, 0.0075]


class TestTensors:
    def test_groups_may_share_one(self):
        tensor = torch.tensor(0.5, dtype=torch.float64)
        params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD([{"params": [p]} for p in params], lr=tensor)
        scheduler = SchedulerFactory.create("linear", optimizer, 4)
        for expected in (0.5, 0.375, 0.25):
            assert [group["lr"] for group in optimizer.param_groups] == [tensor, tensor]
            assert tensor.item() == expected
            scheduler.step()
        assert all(group["lr"] is tensor for group in optimizer.param_groups)

    def test_the_base_is_no_tensor(self):
        """It would be saved with the optimizer, and filled with the rate."""
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.5))
        SchedulerFactory.create("linear", optimizer, 4).step()
        assert optimizer.param_groups[0]["initial_lr"] == 0.5
        assert type(optimizer.param_groups[0]["initial_lr"]) is float


class TestState:
    @pytest.mark.parametrize("state", [{}, {"step": -1}, {"step": "3"}, {"step": 1.5}])
    def test_a_foreign_one_is_refused(self, state):
        with pytest.raises(InputError, match="step"):
            SchedulerFactory.create("constant", sgd(), 5).load_state_dict(state)

    def test_the_length_stays_as_it_was_built(self):
        """So that a training goes on for longer than was planned."""
        short = SchedulerFactory.create("linear", sgd(1.0), 10)
        for _ in range(5):
            short.step()
        longer = SchedulerFactory.create("linear", sgd(1.0), 20)
        longer.load_state_dict(short.state_dict())
        assert longer.get_last_lr()[0] == 0.75


def test_what_lies_ahead_can_be_asked_for():
    optimizer = sgd(1.0, weight_decay=0.2)
    scheduler = SchedulerFactory.create("linear", optimizer, 4, also={"weight_decay": "linear"})
    ahead = [scheduler.at(step)[0] for step in range(6)]
    assert [values["lr"] for values in ahead] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert [values["weight_decay"] for values in ahead] == pytest.approx([0.2, 0.15, 0.1, 0.05, 0.0, 0.0])
    assert scheduler.get_last_lr() == [1.0, 0.01]


def test_a_plain_function_is_a_course():
    optimizer = sgd(1.0)
    scheduler = Scheduler(optimizer, lambda step, total: Factors(1 / (1 + step)), None)
    assert curve(optimizer, scheduler, 3)[:, 0].tolist() == [1, 1 / 2, 1 / 3]


def test_unknown_options_are_refused():
    with pytest.raises(InputError, match=r"cosine has no option 'flor'.*`floor`"):
        course("cosine", flor=0.1)


def test_a_rate_that_the_optimizer_chooses_cannot_be_moved():
    optimizer = sgd()
    optimizer.param_groups[1]["lr"] = None
    with pytest.raises(InputError, match="lr is null"):
        SchedulerFactory.create("cosine", optimizer, 5)
    scheduler = SchedulerFactory.create("constant", optimizer, 5)
    assert math.isnan(scheduler.get_last_lr()[1])


def test_momentum_that_passes_0_comes_back():
    """What it is follows from the step, not from what it was before."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    scheduler = SchedulerFactory.create("onecycle", optimizer, 10, base_momentum=0.0)
    momenta = []
    for _ in range(10):
        momenta.append(optimizer.param_groups[0]["momentum"])
        scheduler.step()
    assert min(momenta) < 0.01
    assert momenta[-1] == pytest.approx(0.95)
    late = SchedulerFactory.create("onecycle", torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9), 10,
                                   base_momentum=0.0)  # fmt: skip
    late.load_state_dict({"step": 9})
    assert late.optimizer.param_groups[0]["momentum"] == momenta[9]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("constant", {"also": {"momentum": "linear", "beta1": "cosine"}}, "beta1: is moved by also.momentum already"),
        ("onecycle", {"also": {"beta1": "linear"}}, "is moved by the schedule itself"),
        ("constant", {"also": {"weight_decay": "linear"}}, "is 0, which a schedule multiplies in vain"),
        ("cosine", {"total": None}, "laid out over the training's length"),
        ("wsd", {"total": None}, "share of the training, which has no end"),
        ("constant", {"total": None, "warmup_steps": 0.1}, "share of the training, which has no end"),
        ("cosine", {"total": "10"}, "total_steps=10: must be a whole number"),
    ],
)
def test_what_cannot_be_followed_is_refused(name, options, told):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1, weight_decay=0.0)
    with pytest.raises(InputError, match=told):
        SchedulerFactory.create(name, optimizer, **{"total_steps": options.pop("total", 10), **options})

"""A run goes back to a sound state bit for bit, whatever it is made of, and pays little for it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ava.distributed.world import World
from ava.optimization import list_optimizers
from ava.training.recovery.snapshot_cadence import Cadence
from ava.training.recovery.snapshots import WATCHED, Snapshots
from ava.training.step import training_step
from tests.optimization.trainings import fingerprint
from tests.training.helpers import CPU, small_run

RUNS = {
    **{name: (f"optimizer={name}",) for name in list_optimizers()},
    "fp16": ("precision=fp16", "precision.init_scale=1024"),
    "ema": ("trainer.ema_decay=0.9",),
    "factored": ("optimizer.state=factored",),
    "int8": ("optimizer.state=int8",),
    "sam": ("optimizer.sam_rho=0.05",),
    "zscore": ("clip=zscore",),
    "fused-backward": ("optimizer.fused_backward=true", "clip=none"),
    "plateau": ("scheduler=plateau",),
    "surgery": ("task=digits_multitask", "surgery=famo"),
}


def print_of(run):
    """All that a run holds, save what describes the past."""
    parts = [run.scheduler, run.noise, run.ema, *run.stateful().values()]
    states = [part.state_dict() for part in parts if part is not None]
    optimizer = run.optimizer
    own = [vars(optimizer)[key] for key in ("judged", "training_weights", "unguided")]
    places = {p: i for i, p in enumerate(p for g in optimizer.param_groups for p in g["params"])}
    held = [{places[p]: dict(s) for p, s in optimizer.state.items()}, optimizer.param_groups, own]
    weights = run.model.state_dict()
    drawn = [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()]
    return fingerprint(weights, held, states, drawn, run.step, run.unheard)


def take_steps(run, windows):
    for window in windows:
        training_step(run, window)


def windows_of(run, count):
    stream = run.loader.windows(run.position)
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize("begun", [0, 3])
@pytest.mark.parametrize("extra", RUNS.values(), ids=RUNS)
def test_five_steps_after_going_back_are_the_same_five(extra, begun):
    run, _ = small_run("trainer.max_steps=40", "scheduler.warmup_steps=4", *extra)
    windows = windows_of(run, 15)
    take_steps(run, windows[:begun])
    snapshots = Snapshots(run, every=1)
    before = print_of(run)
    take_steps(run, windows[5:10])
    after = print_of(run)
    for _ in range(2):
        take_steps(run, windows[10:])
        snapshots.start.restore()
        assert print_of(run) == before
        take_steps(run, windows[5:10])
        assert print_of(run) == after


RESETS = ["adamw", "sgd", "lion", "prodigy", "schedule_free_adamw", "muon", "adafactor", "agmohd"]


@pytest.mark.parametrize("name", RESETS)
def test_without_moments_the_optimizer_is_as_freshly_built(name):
    run, _ = small_run("trainer.max_steps=40", f"optimizer={name}")
    windows = windows_of(run, 8)
    take_steps(run, windows[:3])
    snapshots = Snapshots(run)
    weights = {key: value.clone() for key, value in run.model.state_dict().items()}
    take_steps(run, windows[3:5])
    snapshots.start.restore(moments=False)
    assert not run.optimizer.state
    twin, _ = small_run("trainer.max_steps=40", f"optimizer={name}")
    twin.model.load_state_dict(weights)
    twin.scheduler.load_state_dict(run.scheduler.state_dict())
    for one in (run, twin):
        torch.manual_seed(5)
        take_steps(one, windows[5:8])
    assert fingerprint(run.model.state_dict()) == fingerprint(twin.model.state_dict())


def test_what_describes_the_past_is_not_taken_back():
    run, _ = small_run("trainer.max_steps=40")
    windows = windows_of(run, 3)
    run.best, run.stale, run.evaluated = (2.0, 0), 1, 0
    snapshots = Snapshots(run)
    take_steps(run, windows)
    run.best, run.stale, run.evaluated, run.nonfinite_in_a_row = (1.0, 3), 0, 3, 2
    run.unheard.append(1.0)
    position = run.position
    snapshots.start.restore()
    assert (run.best, run.stale, run.evaluated, run.position) == ((1.0, 3), 0, 3, position)
    assert (run.step, run.unheard, run.nonfinite_in_a_row) == (0, [], 0)


class Walker:
    """Lets a run seem to train: its weights are the number of its steps."""

    def __init__(self, **options):
        self.run, _ = small_run("trainer.max_steps=400")
        self.snapshots = Snapshots(self.run, **options)

    def walk(self, count, is_sound=True):
        for _ in range(count):
            self.run.step += 1
            with torch.no_grad():
                self.run.parameters[0].fill_(self.run.step)
            self.snapshots.offer(is_sound)

    def before(self, step, age=0):
        kept = self.snapshots.before(step, age)
        return None if kept is None else kept.step


def test_a_snapshot_counts_once_the_steps_after_it_were_sound():
    walker = Walker(every=10)
    walker.walk(10 + WATCHED - 1)
    assert walker.before(14) == 10  # nothing vouches for it, and nothing else is there
    walker.walk(10 - WATCHED + 1 + 2)
    assert (walker.before(22), walker.before(22, age=1), walker.before(22, age=9)) == (10, 0, 0)
    walker.walk(3)
    assert (walker.before(25), walker.before(19), walker.before(9)) == (20, 10, 0)


def test_trouble_delays_trust_and_nothing_is_taken_in_it():
    walker = Walker(every=10)
    walker.walk(12)
    walker.walk(9, is_sound=False)
    assert walker.before(12) == 10
    walker.walk(4)
    assert walker.before(25, age=1) == 10  # step 22 was the first sound one: both wait
    assert not any(kept.is_vetted for kept in walker.snapshots._kept)
    walker.walk(3)
    assert walker.before(28) == 22


def test_the_ring_keeps_the_newest_and_uses_its_memory_again():
    walker = Walker(every=7, keep=2)
    walker.walk(7 * 6 + WATCHED)
    assert [walker.before(100, age) for age in range(4)] == [42, 35, 28, 0]
    size = walker.snapshots.nbytes
    walker.walk(70)
    assert walker.snapshots.nbytes == size
    assert walker.before(1000) == 112


@pytest.mark.parametrize("tell", [True, False], ids=["told", "untold"])
def test_going_back_drops_what_was_taken_since(tell):
    walker = Walker(every=10)
    walker.walk(36)
    kept = walker.snapshots.before(25)
    kept.restore()
    assert kept.step == walker.run.step == walker.run.parameters[0].max() == 20
    if tell:
        walker.snapshots.drop_after(20)
    walker.walk(8)
    assert walker.before(1000) == 20
    walker.walk(2 + WATCHED)
    assert walker.before(1000) == 30
    walker.snapshots.before(1000).restore()
    assert walker.run.step == walker.run.parameters[0].max() == 30


def test_the_beginning_is_kept_until_something_else_is_vetted():
    walker = Walker(every=10)
    walker.walk(5)
    walker.snapshots.forget_start()
    assert walker.before(5) == 0
    walker.walk(20)
    assert walker.snapshots.start is None
    assert (walker.before(9), walker.before(25, age=5)) == (None, 10)


@pytest.mark.parametrize(("seconds", "interval"), [(0.0001, 5), (0.008, 146), (1.0, 1000)])
def test_the_interval_follows_from_what_was_measured(seconds, interval):
    cadence = Cadence(CPU, None, 0.01)
    cadence.clock.takes.extend([seconds] * 3)
    cadence.clock.steps.extend([0.01] * 8 + [30.0])
    assert cadence.is_due(5, 1000) is (interval == 5)
    assert cadence.interval == interval
    cadence.clock.seconds = 100.0  # more than the share was spent
    cadence.is_due(interval, 1000)
    assert cadence.interval == min(1000, max(5, interval * 4 if interval > 5 else 8))
    cadence.clock.seconds = 0.55 * 0.01 * 0.01 * 1000 * 1.01  # hardly more than that
    cadence.is_due(cadence.interval, 1000)
    assert cadence.interval == min(1000, max(5, interval * 2 if interval > 5 else 4))


def test_a_given_interval_is_kept():
    cadence = Cadence(CPU, 3, 0.01)
    cadence.clock.takes.append(9.0)
    assert [cadence.is_due(since, since) for since in (2, 3)] == [False, True]


def test_on_the_host_it_is_the_same():
    walker = Walker(every=5, device="cpu")
    walker.walk(12)
    walker.snapshots.before(12).restore()
    assert walker.run.step == walker.run.parameters[0].max() == 5


@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("gap", [3, 5, 8])
def test_the_ring_does_not_grow_while_trouble_comes_again_and_again(every, gap):
    walker = Walker(every=every, keep=3)
    walker.walk(12)
    for _ in range(200 // gap):
        walker.walk(gap - 1)
        walker.walk(1, is_sound=False)
    assert len(walker.snapshots._kept) <= 4 + -(-WATCHED // every)
    assert any(kept.is_vetted for kept in walker.snapshots._kept)  # what counts is not given up for what does not
    walker.walk(12 + every)
    assert walker.before(1000) >= walker.run.step - WATCHED - every


def test_as_long_as_too_much_was_spent_no_more_memory_is_made_than_for_two():
    walker = Walker(every=5, keep=3)
    walker.snapshots.cadence.is_in_debt = True
    walker.walk(200)
    assert len(walker.snapshots._kept) == 2
    assert sum(kept.is_vetted for kept in walker.snapshots._kept) >= 1
    walker.snapshots.cadence.is_in_debt = False
    walker.walk(100)
    assert len(walker.snapshots._kept) == 4


@pytest.mark.parametrize("moments", [True, False])
def test_going_back_leaves_the_lowered_rate(moments):
    run, _ = small_run("trainer.max_steps=40", "scheduler=cosine", "scheduler.warmup_steps=0")
    windows = windows_of(run, 6)
    take_steps(run, windows[:2])
    snapshots = Snapshots(run)
    wanted = run.scheduler.at(2)[0]["lr"] * 0.125
    take_steps(run, windows[2:])
    run.scheduler.rescale(0.125)
    snapshots.start.restore(moments)
    run.scheduler.rescale(0.125)
    assert float(run.optimizer.param_groups[0]["lr"]) == wanted


def test_what_the_guard_remembers_is_kept_without_reading_it(monkeypatch):
    run, _ = small_run("recovery=ladder", "trainer.max_steps=40")
    take_steps(run, windows_of(run, 3))
    run.guard.usual = torch.tensor(2.5, dtype=torch.float64)  # as on an accelerator
    snapshots = Snapshots(run, every=1)
    before = print_of(run)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "__float__", lambda tensor: pytest.fail("waited for a tensor"))
        patch.setattr(torch.Tensor, "item", lambda tensor: pytest.fail("waited for a tensor"))
        run.step += 1
        snapshots.offer(True)
        run.step -= 1
    take_steps(run, windows_of(run, 4))
    assert print_of(run) != before
    snapshots.start.restore()
    assert print_of(run) == before


class Event:
    """Of a device that is always done."""

    def __init__(self, enable_timing):
        del enable_timing

    def record(self):
        pass

    def query(self):
        return True

    def elapsed_time(self, other):
        del other
        return 1.0


@pytest.mark.parametrize("every", [2, None])
def test_what_a_device_has_measured_is_read_whether_the_interval_is_given_or_not(every, monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    cadence = Cadence(World(0, 1, torch.device("cuda")), every, 0.01)
    for index in range(1, 50):
        cadence.clock.tick()
        cadence.clock.begin()
        cadence.is_due(cadence.interval, 10 * index)
        cadence.clock.end()
    assert len(cadence.clock._unread) <= 1
    assert cadence.clock.seconds > 0

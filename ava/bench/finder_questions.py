"""What is asked of a learning-rate finder, and how the answers are measured."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ava.bench.arms.finder_arm import Finder, Range, Search
from ava.bench.finder_scene import RATIO, are_equal, begun, fresh, holdings, train, validation_loss

ENDINGS: dict[str, type[BaseException] | None] = {
    "finished": None,
    "error": ArithmeticError,
    "Ctrl-C": KeyboardInterrupt,
}
"""How a search ends, and what is raised for it within the model's 30th forward pass."""
GRID = tuple(float(f"{10 ** (-4 + k / 2):.2g}") for k in range(9))
Rates = list[list[float]]


@dataclass(frozen=True)
class Aftermath:
    """What a search left behind.

    Attributes:
        kept: what -> whether it is bit for bit as before.
        arrived: the exception that came out, None where none did.
        rates: of each step, of each group.
    """

    kept: dict[str, bool]
    arrived: str | None
    rates: Rates

    @property
    def ratios(self) -> tuple[float, float]:
        """The lowest and the highest ratio of the groups' rates; it was `RATIO`."""
        ratios = [head / body for head, body in self.rates]
        return min(ratios), max(ratios)


@dataclass(frozen=True)
class Answer:
    """What a search came to: a rate, or what it says instead."""

    lr: float | None
    said: str | None = None


@dataclass(frozen=True)
class Case:
    """A search that has nothing to find.

    Attributes:
        tested: the range.
        scene: `fresh`'s options.
    """

    tested: Range = field(default_factory=Range)
    scene: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "targets are noise": Case(scene={"learnable": False}),
    "rates far too low (1e-9 to 1e-8)": Case(Range(1e-9, 1e-8)),
    "loss still falls at the end (1e-6 to 1e-3)": Case(Range(1e-6, 1e-3)),
    "loader of 28 batches for 100 steps": Case(scene={"num_batches": 28}),
}


def aftermath(finder: Finder, ending: str, tested: Range | None = None) -> Aftermath:
    """Search in a training that has begun, and look at what differs.

    Args:
        finder: which one.
        ending: one of `ENDINGS`.
        tested: the range; None is the default one.
    """
    scene = begun(0)
    before = holdings(scene)
    search = finder(scene, tested or Range())
    arrived = None
    caught: tuple[type[BaseException], ...] = (Exception, *_interrupts(ending))
    with _recorded(scene.optimizer) as rates, _trapped(scene.model, ENDINGS[ending]):
        try:
            search()
        except caught as error:
            arrived = type(error).__name__
    after = holdings(scene)
    return Aftermath({name: are_equal(before[name], after[name]) for name in before}, arrived, rates)


def answer(finder: Finder, case: Case, seed: int) -> Answer:
    """What the finder says of a fresh training."""
    return _answer(finder(fresh(seed, **case.scene), case.tested))


def reached(lr: float, seed: int, num_steps: int) -> float:
    """The validation loss of torch's OneCycleLR with this highest rate for the head, infinite where it is no number."""
    scene = fresh(seed)
    schedule = torch.optim.lr_scheduler.OneCycleLR(scene.optimizer, [lr, lr / RATIO], total_steps=num_steps + 1)
    train(scene, num_steps, schedule.step)
    loss = validation_loss(scene)
    return loss if math.isfinite(loss) else math.inf


def grid_losses(seeds: Sequence[int], num_steps: int) -> dict[float, float]:
    """Rate of the grid -> the mean loss over seeds."""
    return {lr: statistics.fmean(reached(lr, seed, num_steps) for seed in seeds) for lr in GRID}


@dataclass
class Cost:
    """What searches took, one entry a round.

    Attributes:
        wall_s: seconds of a search.
        cpu_s: its processor time in seconds.
        bare_cpu_s: that of the bare loop over as many steps.
        steps: how many.
    """

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    bare_cpu_s: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The median over rounds of the search's processor time over the bare loop's beside it."""
        return statistics.median(own / bare for own, bare in zip(self.cpu_s, self.bare_cpu_s, strict=True))


def costs(finders: Mapping[str, Finder], rounds: int) -> dict[str, Cost]:
    """The time of each finder's search in turns; the first round, which imports and warms up, does not count."""
    found = {name: Cost() for name in finders}
    for turn, (name, finder) in itertools.product(range(rounds + 1), finders.items()):
        scene = fresh(turn)
        search = finder(scene, Range())
        with _recorded(scene.optimizer) as rates:
            wall_s, cpu_s = _timed(functools.partial(_answer, search))
        scene = fresh(turn)
        bare = _timed(functools.partial(train, scene, len(rates)))[1]
        if turn:
            cost = found[name]
            cost.wall_s.append(wall_s)
            cost.cpu_s.append(cpu_s)
            cost.bare_cpu_s.append(bare)
            cost.steps.append(len(rates))
    return found


def _answer(search: Search) -> Answer:
    try:
        lr = search()
    except Exception as error:
        return Answer(None, f"{type(error).__name__}: {error}")
    return Answer(lr, "None" if lr is None else None)


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _interrupts(ending: str) -> tuple[type[BaseException], ...]:
    """What is caught besides errors: a true Ctrl-C is not."""
    return (KeyboardInterrupt, SystemExit) if ENDINGS[ending] is KeyboardInterrupt else ()


@contextlib.contextmanager
def _recorded(optimizer: torch.optim.Optimizer) -> Iterator[Rates]:
    """Collects the groups' rates of each step."""
    rates: Rates = []

    def note(optimizer: torch.optim.Optimizer, *_: object) -> None:
        rates.append([float(group["lr"]) for group in optimizer.param_groups])

    hook = optimizer.register_step_pre_hook(note)
    try:
        yield rates
    finally:
        hook.remove()


@contextlib.contextmanager
def _trapped(model: nn.Module, error: type[BaseException] | None, at: int = 30) -> Iterator[None]:
    """Within it the model's forward pass number `at` raises an error, if one is given."""
    calls = itertools.count(1)

    def fail(*_: object) -> None:
        if error is not None and next(calls) == at:
            raise error(f"in forward pass {at}")

    hook = model.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()

"""The LR range test inside a run: with its own step, so with its micro-batches, precision, clipping and ranks.

Weights, optimizer, averages, schedule, random numbers and the position in the data are afterwards what they were
before, also where the test breaks off.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ava import rng
from ava.optimization.learning_rate.factors import Phase
from ava.optimization.learning_rate.finder.findings import Findings, examine
from ava.optimization.learning_rate.finder.probes import FACTORS, Probe, course_of, probe_of
from ava.optimization.learning_rate.finder.range_test import Curve, LRFinderConfig, RangeTest
from ava.optimization.learning_rate.finder.rates import Rates
from ava.optimization.snapshot import Snapshot
from ava.training.determinism import seed_everything
from ava.training.state import Run
from ava.training.step import StepReport, training_step

MOST_OVERFLOWS = 128
"""From the largest loss scale down to 1 by halves."""


def search_lr(run: Run, config: LRFinderConfig, num_seeds: int = 1) -> Findings:
    """Find a learning rate: range tests, and where the method wants them, short trainings around what they suggest.

    Args:
        run: left as it is.
        config: the range and the method.
        num_seeds: range tests.

    Returns:
        The same on every rank; a refusal is part of it.

    Raises:
        InputError: the optimizer chooses its own rate.
    """
    with _settled_scale(run):
        findings = examine(range_test(run, config, num_seeds), config)
        if config.method != "probes" or findings.refusal is not None:
            return findings
        middle = findings.suggestions["valley"].lr
        return findings.with_probes([probe(run, middle * factor, config.probe_steps) for factor in FACTORS])


def probe(run: Run, lr: float, num_steps: int) -> Probe:
    """Train for a few steps with a 1cycle; the run is afterwards what it was.

    Args:
        run: left as it is.
        lr: the peak rate, in units of the optimizer's learning rate.
        num_steps: optimizer steps.
    """
    rates, losses = Rates(run.optimizer), list[float]()
    with _kept(run):
        run.scheduler = _Held()  # type: ignore[assignment]
        run.network.train()
        windows = run.loader.windows(run.position)
        for rate, momentum in course_of(lr, num_steps):
            rates.set(rate, momentum)
            losses.append(_mean_loss(run, training_step(run, next(windows))))
            if not math.isfinite(losses[-1]):
                break
    return probe_of(lr, losses, num_steps)


def range_test(run: Run, config: LRFinderConfig, num_seeds: int = 1) -> list[Curve]:
    """Train for a few steps while the learning rate rises; every rank takes part and sees the same.

    Args:
        run: left as it is.
        config: the range, in units of the optimizer's learning rate. Groups keep their ratio to it.
        num_seeds: how often, each time with another order of the samples and other random numbers.

    Returns:
        What was seen each time.

    Raises:
        InputError: the optimizer chooses its own rate.
    """
    rates = Rates(run.optimizer)
    curves = []
    for seed in range(num_seeds):
        with _kept(run):
            if seed:
                run.loader = copy.copy(run.loader)
                run.loader.seed += seed
                seed_everything(run.loader.seed + run.world.rank * 1_000_003)
            curves.append(_one(run, RangeTest(config), rates))
    return curves


def _one(run: Run, test: RangeTest, rates: Rates) -> Curve:
    run.scheduler = _Held()  # type: ignore[assignment]
    run.network.train()
    windows = run.loader.windows(run.position)
    while not test.is_over:
        rates.set(test.lr)
        test.take(_mean_loss(run, training_step(run, next(windows))))
    return test.curve()


class _Held:
    """Stands in the schedule's place while the test sets the rates."""

    phase: Phase = "main"

    def step(self, skipped: bool | torch.Tensor = False) -> None:
        """Nothing: the rate of the next step is set when that comes."""


@contextmanager
def _settled_scale(run: Run) -> Iterator[None]:
    """Within it the loss scale is one that does not overflow at first: steps that are skipped say nothing of a rate."""
    scale = run.policy.loss_scale
    if scale is None:
        yield
        return
    before = scale.state_dict()
    with _kept(run):
        run.scheduler = _Held()  # type: ignore[assignment]
        run.network.train()
        for window in itertools.islice(run.loader.windows(run.position), MOST_OVERFLOWS):
            if not bool(training_step(run, window).health.found_inf):
                break
        settled = scale.state_dict()
    scale.load_state_dict(settled)
    try:
        yield
    finally:
        scale.load_state_dict(before)


def _mean_loss(run: Run, report: StepReport) -> float:
    """The step's loss over all ranks; waits for the device."""
    total = torch.stack([loss.float() for loss in report.losses.values()]).sum() * report.weight
    return float(run.world.sum_(total))


@contextmanager
def _kept(run: Run) -> Iterator[None]:
    """Whatever happens within it, the run is afterwards what it was."""
    snapshot = Snapshot(run.model, run.optimizer, *run.stateful().values())
    random = rng.capture()
    fields = ("scheduler", "loader", "ema", "step", "position", "guard")
    former = {name: getattr(run, name) for name in fields}
    run.ema = None  # an average costs time and changes no loss
    run.guard = None  # a rate that is too high is what the test looks for
    try:
        yield
    finally:
        snapshot.restore()
        rng.restore(random)
        for name, value in former.items():
            setattr(run, name, value)

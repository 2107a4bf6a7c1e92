"""The last sound states of a run, in memory, and the way back to them.

    snapshots = Snapshots(run)
    for window in windows:
        report = training_step(run, window)
        snapshots.offer(is_sound(report))
    ...
    kept = snapshots.before(onset)
    kept.restore()

Trouble is seen after it begins: a state counts as sound once the steps that followed it were. Until then it waits
beside those that are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

import torch

from ava import rng
from ava.optimization.snapshot import Snapshot
from ava.training.recovery.fresh_state import forget_state
from ava.training.recovery.snapshot_cadence import Cadence
from ava.training.recovery.snapshot_clock import TICKS
from ava.training.state import Run

WATCHED = 5
"""Sound steps after a snapshot, one after another, that vouch for it."""


class Kept:
    """A run as it was after some step.

    Attributes:
        step: optimizer steps taken by then.
        is_vetted: the steps that followed were sound.
        snapshot: the values.
    """

    def __init__(self, run: Run, snapshot: Snapshot) -> None:
        self._run, self.snapshot = run, snapshot
        self.step, self.is_vetted = run.step, False

    def restore(self, moments: bool = True) -> None:
        """Take the run back, in place and bit for bit.

        Weights, buffers, the optimizer's state, loss scale, averages, schedule, what clipping and surgery remember, the
        noise scale, random numbers, the step and the losses that the schedule was not told yet are as they were. No
        step is counted as non-finite. What was true whatever the weights are stays: the position in the data, the
        seconds, the best evaluation, and how many there were since.

        Args:
            moments: False lets the optimizer begin with the state of a new one.
        """
        self.snapshot.restore()
        self._run.nonfinite_in_a_row = 0
        if not moments:
            forget_state(self._run.optimizer)
        # The groups hold the rates of then, and who lowered them since means it.
        self._run.scheduler.reapply()


class Snapshots:
    """A ring of the newest sound snapshots, and the one of the beginning.

    Args:
        run: what is trained. The first snapshot is taken at once, of the beginning.
        keep: vetted snapshots to keep; at first as many as `cost` allows memory for, one at least.
        every: steps between two; None takes as many as `cost` allows.
        cost: share of the training time that they may take, in (0, 1].
        device: "same" keeps them where the run is; "cpu" in the host's memory (pinned, copied without waiting). The one
            of the beginning lies in the host's memory in any case.

    Attributes:
        start: of the beginning; None once it is forgotten.
        taken: how many were taken besides.
    """

    def __init__(
        self, run: Run, keep: int = 3, every: int | None = None, cost: float = 0.01,
        device: Literal["same", "cpu"] = "same",
    ) -> None:  # fmt: skip
        self.run, self.keep, self.device = run, keep, device
        self.cadence, self.taken = Cadence(run.world, every, cost), 0
        self._kept: list[Kept] = []
        self._free: list[Snapshot] = []
        self._source: Snapshot | None = None
        self._is_early = True
        self._first = self._last = self._seen = self._unsound = run.step
        began = time.perf_counter()
        self.start: Kept | None = Kept(run, Snapshot(*parts_of(run), device=torch.device("cpu"), gradients=False))
        self._start_seconds = time.perf_counter() - began
        self._next = run.step + 1

    @property
    def seconds(self) -> float:
        """Spent on taking snapshots so far, on an accelerator as far as that is known."""
        self.cadence.clock.read()
        return self._start_seconds + self.cadence.clock.seconds

    @property
    def nbytes(self) -> int:
        """Memory that all of them take, in bytes."""
        held = [*(kept.snapshot for kept in self._kept), *self._free, *([self.start.snapshot] if self.start else [])]
        return sum(snapshot.nbytes for snapshot in held)

    def offer(self, is_sound: bool) -> None:
        """A step has ended; a snapshot is taken if one is due and the step was sound.

        Args:
            is_sound: nothing wrong was seen in this step; the same on all ranks.
        """
        step = self.run.step
        if is_sound and self._seen < step < self._next:
            self._seen = step
            return
        if step <= self._seen:  # the run went back
            self.drop_after(step - 1)
        if is_sound:
            self._seen = step
            self._consider(step)
        else:
            self._vet()
            self._seen = self._unsound = step

    def before(self, step: int, age: int = 0) -> Kept | None:
        """The newest vetted snapshot that was taken at or before a step.

        Where there is none, the newest that nothing vouches for yet; where there is none either, that of the
        beginning; None if that is forgotten.

        Args:
            step: the last one that is believed to be sound.
            age: go so many snapshots further back, to the oldest at most.
        """
        self._vet()
        older = [kept for kept in reversed(self._kept) if kept.step <= step]
        vetted = [kept for kept in older if kept.is_vetted]
        chain = [*(vetted or older), *([self.start] if self.start is not None else [])]
        return chain[min(age, len(chain) - 1)] if chain else None

    def drop_after(self, step: int) -> None:
        """Forget those taken after a step, which the run has left behind by going back."""
        self._vet()
        self._free += [kept.snapshot for kept in self._kept if kept.step > step]
        self._kept = [kept for kept in self._kept if kept.step <= step]
        # Whatever is not vetted yet has to be followed by sound steps of the new course.
        self._seen = self._unsound = step
        self._last = min(self._last, step)
        self._next = step + 1

    def forget_start(self) -> None:
        """Give the memory of the beginning back, as soon as there is a vetted snapshot to go back to instead."""
        self._is_early = False
        self._let_start_go()

    def _consider(self, step: int) -> None:
        """Take a snapshot if one is due, or measure the step; and say when there is something to do again."""
        clock, since = self.cadence.clock, step - self._last
        if since <= TICKS:
            clock.tick()
        if since >= self.cadence.interval:
            clock.begin()
            if self.cadence.is_due(since, step - self._first):
                self._take()
                self._last, since = step, 0
                clock.end()
        self._next = step + 1 if since < TICKS else max(self._last + self.cadence.interval, step + 1)

    def _take(self) -> None:
        self._vet()
        snapshot = self._room()
        snapshot.retake()
        self._kept.append(Kept(self.run, snapshot))
        self.taken += 1
        self._let_start_go()

    def _room(self) -> Snapshot:
        """Memory for the next one: of one that was dropped, of the oldest that is not needed, or more of it."""
        if self._free:
            return self._free.pop()
        if sum(kept.is_vetted for kept in self._kept) > (1 if self.cadence.is_in_debt else self.keep):
            return self._kept.pop(0).snapshot
        if len(self._kept) > self.keep + math.ceil(WATCHED / self.cadence.interval):
            # Trouble comes again and again, and hardly any is ever vetted: the oldest of those that wait goes.
            oldest = next(index for index, kept in enumerate(self._kept) if not kept.is_vetted)
            return self._kept.pop(oldest).snapshot
        if self._source is None:
            on_host = self.device == "cpu"
            device = torch.device("cpu") if on_host else None
            room = self._source = Snapshot(*parts_of(self.run), device=device, gradients=False, pinned=on_host)
        else:
            room = self._source.another()
        self.cadence.clock.prepare()
        return room

    def _vet(self) -> None:
        """Note which of them were followed by sound steps, up to the last one seen."""
        for kept in self._kept:
            sound = self._seen - max(kept.step, self._unsound)
            kept.is_vetted = kept.is_vetted or sound >= WATCHED

    def _let_start_go(self) -> None:
        if not self._is_early and any(kept.is_vetted for kept in self._kept):
            self.start = None


class _Progress:
    """What a run counts, and the random numbers of the process."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def hold(self) -> Callable[[], None]:
        """The way back."""
        run, random = self.run, rng.hold()
        step, unheard = run.step, list(run.unheard)

        def back() -> None:
            random()
            run.step, run.unheard = step, list(unheard)

        return back


def parts_of(run: Run) -> list[object]:
    """All that a step changes, save the position in the data."""
    return [run.model, run.optimizer, run.scheduler, run.ema, run.noise, *run.stateful().values(), _Progress(run)]

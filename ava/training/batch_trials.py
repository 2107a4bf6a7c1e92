"""One real training step with a batch of a given size: whether it fits, and what it takes at its highest.

On a GPU a step that does not fit raises an error, and nothing is lost. On a CPU there is no such error: the system ends
the process. There the peak of each step is measured, and a limit is set beforehand.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from ava import rng
from ava.data.loader import Position
from ava.distributed.world import World
from ava.errors import InputError
from ava.optimization.learning_rate.factors import Phase
from ava.optimization.optimizers.roster import Roster
from ava.optimization.snapshot import Snapshot
from ava.training.memory_host import free_memory, peak_resident, reset_peak, resident
from ava.training.state import Run
from ava.training.step import training_step

SHARE = 0.9
"""Of the free memory of a host, what a trial may take: what is beyond it is not an error but the end."""
_NO_MEMORY = re.compile(r"out of memory|(can't|cannot|could not|unable to) allocate", re.IGNORECASE)


@dataclass(frozen=True)
class Trial:
    """One step.

    Attributes:
        size: samples of a micro-batch.
        fits: whether it does.
        peak: the most memory held, in bytes: of a host what the process held, of a GPU what torch reserved there; None
            where there was not enough.
        foreseen: what was expected, from the trials before.
    """

    size: int
    fits: bool
    peak: int | None
    foreseen: int | None = None


class Meter(Protocol):
    """Measures what a step takes."""

    limit: int | None
    """What it may take, in bytes; None leaves that to the device."""

    def floor(self) -> int | None:
        """What is held between two steps, in bytes; None where nothing has to be foreseen."""

    def peak(self, step: Callable[[], object]) -> int | None:
        """Take a step; the most memory held during it, or None if there was not enough."""


class HostMeter:
    """Of a process on a CPU.

    Args:
        limit: what the process may hold; None takes nine tenths of what is free now, shared among the ranks here.

    Attributes:
        extra: what the search itself holds, which is not counted.
    """

    def __init__(self, limit: int | None) -> None:
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        self.extra = 0
        reset_peak()
        self.limit: int | None = resident() + int(SHARE * free_memory()) // sharing if limit is None else limit

    def floor(self) -> int | None:
        """What is held between two steps."""
        reset_peak()
        return resident() - self.extra

    def peak(self, step: Callable[[], object]) -> int | None:
        """As of `Meter`."""
        reset_peak()
        return peak_resident() - self.extra if _had_room(step) else None


class GPUMeter:
    """Of torch's allocator on a GPU.

    Args:
        device: the GPU.
        limit: what it may reserve; None is all there is.
    """

    def __init__(self, device: torch.device, limit: int | None) -> None:
        self.device, self.limit = device, limit

    def floor(self) -> int | None:
        """Nothing has to be foreseen: a step without room is an error like any other."""
        return None

    def peak(self, step: Callable[[], object]) -> int | None:
        """As of `Meter`."""
        gc.collect(1)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

        def whole() -> None:
            step()
            torch.cuda.synchronize(self.device)

        return int(torch.cuda.max_memory_reserved(self.device)) if _had_room(whole) else None


def _had_room(step: Callable[[], object]) -> bool:
    try:
        step()
        return True
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if not _NO_MEMORY.search(str(error)):
            raise
    gc.collect()  # the error's frames held the step's tensors
    return False


class Trials:
    """Steps of a run with batches of other sizes, on this rank alone; inside `trying`.

    Args:
        run: changed by every step.
        meter: measures them.
    """

    def __init__(self, run: Run, meter: Meter) -> None:
        self.run, self.meter = run, meter

    def warm_up(self) -> int | None:
        """Let optimizer state and caches come into being; what is held from then on."""
        self.meter.peak(lambda: self._step(min(2, len(self.run.loader.split)), 1))
        return self.meter.floor()

    def take(self, size: int, num_samples: int, accumulate: int, foreseen: int | None = None) -> Trial:
        """One step with `num_samples` samples in `accumulate` micro-batches, of `size` samples at most."""
        peak = self.meter.peak(lambda: self._step(num_samples, accumulate))
        fits = peak is not None and (self.meter.limit is None or peak <= self.meter.limit)
        return Trial(size, fits, peak, foreseen)

    def _step(self, num_samples: int, accumulate: int) -> None:
        run, loader = self.run, copy.copy(self.run.loader)
        loader.batch_size, loader.accumulate = num_samples, accumulate
        loader.rank, loader.world_size, loader.workers = 0, 1, 0
        window = next(loader.windows(Position()))
        # The third micro-batch takes no more than the second, which runs beside the gradients of the first.
        run.step = 0
        training_step(run, dataclasses.replace(window, batches=window.batches[:2]))


@contextmanager
def trying(run: Run, limit: int | None) -> Iterator[Trials]:
    """Within it steps may be tried; whatever happens, the run is afterwards what it was, bit for bit.

    Args:
        run: what is trained.
        limit: what a step may take, in bytes.

    Raises:
        InputError: its device's memory cannot be measured; or ranks that have to speak to one another within a step.
    """
    meter = _meter(run, limit)
    _refuse_dialogue(run)
    # Copies in the host's memory, where they do not take what is being measured; a host's meter leaves them out.
    snapshot = Snapshot(run.model, run.optimizer, *run.stateful().values(), device=torch.device("cpu"))
    if isinstance(meter, HostMeter):
        meter.extra = snapshot.nbytes
    # What optimizers remember of the trials' tensors goes with this one; the snapshot puts their own back.
    run.optimizer._roster = Roster()
    random = rng.capture()
    try:
        with _alone(run):
            run.model.train()
            yield Trials(run, meter)
    finally:
        run.optimizer.zero_grad(set_to_none=True)
        snapshot.restore()
        rng.restore(random)
        del snapshot
        gc.collect()
        if run.world.device.type == "cuda":
            torch.cuda.empty_cache()


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Within it the run is one rank's, uncompiled, without schedule and averages, and each step is looked at."""
    former = dict(vars(run))
    scaling = getattr(run.policy.float8, "scaling", None)
    exchange = None if scaling is None else scaling.max_over_ranks
    run.ema, run.guard, run.scheduler = None, None, _Held()  # type: ignore[assignment]
    run.world, run.network = World(0, 1, run.world.device), run.model
    run.compilation, run.graphs = None, None
    every = {key: min(1, getattr(run.watch, key)) for key in ("statistics_every", "detail_every")}
    run.watch = dataclasses.replace(run.watch, **every)
    if scaling is not None:
        scaling.max_over_ranks = None
    try:
        yield
    finally:
        vars(run).update(former)
        if scaling is not None:
            scaling.max_over_ranks = exchange


class _Held:
    """Stands in the schedule's place: the rates stay what they are."""

    phase: Phase = "main"

    def step(self, skipped: bool | torch.Tensor = False) -> None:
        """Nothing."""


def _meter(run: Run, limit: int | None) -> Meter:
    device = run.world.device
    if device.type == "cpu":
        return HostMeter(limit)
    if device.type == "cuda":
        return GPUMeter(device, limit)
    raise InputError(f"there is no measure of the memory of {device.type}.", key="trainer.device", value=str(device))


def _refuse_dialogue(run: Run) -> None:
    """Each rank tries alone: one that finds no room would leave the others waiting."""
    if run.world.size > 1 and run.surgery is not None:
        problem = "lets ranks exchange gradients within a step, in which one of them may run out of memory."
        raise InputError(problem, key="surgery", value="", hint="Find the batch size with one process.")

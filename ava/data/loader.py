"""Which samples each optimizer step sees, on which rank, in which micro-batch.

The order of an epoch is a pure function of the seed and the epoch; a window is the next `batch_size` samples of
it, whatever the number of ranks; each rank takes its share of the window and cuts it into `accumulate`
micro-batches. So a position is two numbers (epoch, samples taken in it), a resumed run continues in the middle of
an epoch without replaying anything, and neither ranks nor micro-batches lose or repeat a sample.

Worker processes only fetch what they are told: the plan is made here, and every random number of a fetch is keyed
by seed, epoch and sample, so their number changes nothing but speed.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from ava.data.source import Split
from ava.errors import InputError

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Position:
    """How far training has come in its data: `sample` samples taken in epoch `epoch`, over all ranks."""

    epoch: int = 0
    sample: int = 0


@dataclass(frozen=True)
class Window:
    """The samples of one optimizer step on one rank.

    Attributes:
        batches: micro-batches, in order; at least one.
        counted: False where the window had no sample left for this rank, and `batches` holds a stand-in that must
            weigh nothing (every rank has to take part in the step).
        num_samples: samples of the whole window, over all ranks.
        position: where training stands after this step.
        start: where it stood before.
        copies: the micro-batches on the accelerator, where they are there already.
    """

    batches: list[Batch]
    counted: bool
    num_samples: int
    position: Position
    start: Position = Position()
    copies: list[Batch] | None = None

    @property
    def on_device(self) -> list[Batch]:
        """The micro-batches as near to the model as they are; `batches` stays on the host."""
        return self.batches if self.copies is None else self.copies


@dataclass(frozen=True)
class _Plan:
    """A window before it is fetched: sample indices per micro-batch."""

    epoch: int
    shares: list[np.ndarray] = field(repr=False)
    counted: bool
    num_samples: int
    position: Position
    start: Position


class TrainingLoader:
    """Windows without end, from any position on.

    Args:
        split: the training samples.
        batch_size: samples of one optimizer step, over all ranks.
        accumulate: micro-batches a rank cuts its share into.
        seed: keys the order of every epoch.
        rank: this process, 0 <= rank < world_size.
        world_size: number of processes.
        workers: processes that fetch ahead; 0 fetches in this one.
        pin_memory: page-lock the batches, for copies to an accelerator.
        prefetch: windows that each worker fetches ahead.
    """

    def __init__(
        self, split: Split, *, batch_size: int, accumulate: int = 1, seed: int = 0, rank: int = 0,
        world_size: int = 1, workers: int = 0, pin_memory: bool = False, prefetch: int = 4,
    ) -> None:  # fmt: skip
        self.split, self.batch_size, self.accumulate, self.seed = split, batch_size, accumulate, seed
        self.rank, self.world_size, self.workers, self.pin_memory = rank, world_size, workers, pin_memory
        self.prefetch = prefetch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in one epoch; the last may be smaller."""
        return math.ceil(len(self.split) / self.batch_size)

    def windows(self, start: Position) -> Iterator[Window]:
        """Every window from `start` on, epoch after epoch."""
        for plan, batches in _fetched(self.split, self.plans(start), self.workers, self.pin_memory, self.prefetch):
            yield Window(batches, plan.counted, plan.num_samples, plan.position, plan.start)

    def indices(self, start: Position, num_samples: int) -> np.ndarray:
        """Which samples of the split a window held: (num_samples,) int64, in the order in which they were taken."""
        return epoch_order(len(self.split), self.seed, start.epoch)[start.sample : start.sample + num_samples]

    def batch_sizes(self) -> list[int]:
        """Samples of each micro-batch that this rank can meet, the usual ones first.

        An epoch has two sorts of windows: the full ones, and the last.
        """
        full, rest = divmod(len(self.split), self.batch_size)
        windows = [np.empty(size) for size in [self.batch_size] * (full > 0) + [rest] * (rest > 0)]
        shares = [share for window in windows for share in self._cut(window)[0]]
        return list(dict.fromkeys(len(share) for share in shares))

    def plans(self, start: Position) -> Iterator[_Plan]:
        """The windows' sample indices; nothing is fetched."""
        epoch, sample = start.epoch, start.sample
        while True:
            order = epoch_order(len(self.split), self.seed, epoch)
            for first in range(sample, len(order), self.batch_size):
                yield self._plan(epoch, order[first : first + self.batch_size], first, len(order))
            epoch, sample = epoch + 1, 0

    def _plan(self, epoch: int, window: np.ndarray, first: int, length: int) -> _Plan:
        last = first + len(window)
        after = Position(epoch, last) if last < length else Position(epoch + 1, 0)
        parts, counted = self._cut(window)
        return _Plan(epoch, parts, counted, len(window), after, Position(epoch, first))

    def _cut(self, window: np.ndarray) -> tuple[list[np.ndarray], bool]:
        """The micro-batches of a window on this rank, and whether they count: without a sample it takes a stand-in."""
        share = rank_share(window, self.rank, self.world_size)
        if len(share) == 0:
            return [window[:1]], False
        return np.array_split(share, min(self.accumulate, len(share))), True


def evaluation_batches(
    split: Split, *, batch_size: int, rank: int = 0, world_size: int = 1, workers: int = 0, pin_memory: bool = False
) -> Iterator[Batch]:
    """Every sample of `split` once, in order, over all ranks together; a rank may get fewer batches than another."""
    share = rank_share(np.arange(len(split)), rank, world_size)
    cuts = [share[i : i + batch_size] for i in range(0, len(share), batch_size)]
    plans = iter([_Plan(0, [cut], True, len(cut), Position(), Position()) for cut in cuts])
    for _, batches in _fetched(split, plans, workers, pin_memory):
        yield from batches


def epoch_order(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation of `range(num_samples)`, int64, keyed by seed and epoch."""
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_samples)


def rank_share(indices: np.ndarray, rank: int, world_size: int) -> np.ndarray:
    """The contiguous part of `indices` that is `rank`'s; parts differ by one sample at most, some may be empty."""
    return np.array_split(indices, world_size)[rank] if world_size > 1 else indices


class _Fetcher(Dataset[tuple[_Plan, list[Batch]] | Exception]):
    """Fetches what a plan names; what a worker process runs.

    A worker returns what goes wrong, for `DataLoader` would make the worker's traceback the message. Only our own
    error is sure to survive the way to the other process.
    """

    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, plan: Any) -> tuple[_Plan, list[Batch]] | Exception:
        try:
            return plan, [self.split.fetch(share, plan.epoch) for share in plan.shares]
        except Exception as error:
            if get_worker_info() is None:
                raise
            told = error if isinstance(error, InputError) else RuntimeError(f"{type(error).__name__}: {error}")
            told.add_note(traceback.format_exc())
            return told


class _Plans(Sampler[Any]):
    """An iterator of plans as the sampler that `DataLoader` hands to its workers."""

    def __init__(self, plans: Iterator[_Plan]) -> None:
        self.plans = plans

    def __iter__(self) -> Iterator[_Plan]:
        return self.plans


def _fetched(
    split: Split, plans: Iterator[_Plan], workers: int, pin_memory: bool, prefetch: int = 4
) -> Iterator[tuple[_Plan, list[Batch]]]:
    fetcher = _Fetcher(split)
    fetched: Iterable[tuple[_Plan, list[Batch]] | Exception]
    if workers == 0 and not pin_memory:
        fetched = map(fetcher.__getitem__, plans)
    else:
        # A generator of its own: DataLoader draws a base seed from it, else from the global RNG that a resume restores.
        fetched = DataLoader(
            fetcher, batch_size=None, sampler=_Plans(plans), num_workers=workers, collate_fn=_identity,
            pin_memory=pin_memory, generator=torch.Generator(), prefetch_factor=prefetch if workers else None,
        )  # fmt: skip
    for item in fetched:
        if isinstance(item, Exception):
            raise item
        yield item


def _identity(item: Any) -> Any:
    return item

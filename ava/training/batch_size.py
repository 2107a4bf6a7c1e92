"""The largest batch that fits: real steps of growing size, measured, until the next would not.

Sizes double while they fit. On a host a line through the last two peaks says what the next will take: no step is tried
that it puts beyond the limit, and the last size is the one that it puts just within. On a GPU the gap between what fits
and what does not is halved. Either way the search ends within `TOLERANCE` of the largest, or within one sample, and
the size it ends at is tried once more.

A batch counts the samples of an optimizer step, so how it is cut into micro-batches changes memory only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ava.errors import InputError
from ava.training.batch_trials import Trial, Trials, trying
from ava.training.state import Run

TOLERANCE = 1 / 32
"""The search ends where the next size would be larger by less than this part, or than one sample."""
REMEDIES = (
    "Try trainer.activation_checkpointing=true, a smaller model, precision=bf16, precision.parameters=bf16 with "
    "optimizer.stochastic_rounding=true, or optimizer.state=int8."
)


@dataclass(frozen=True)
class FoundBatch:
    """The largest batch that fits.

    Attributes:
        batch_size: samples of one optimizer step, over all ranks.
        micro_batch: samples of one micro-batch on one rank.
        accumulate: micro-batches of a rank.
        ranks: how many there are.
        ended: "memory", or "data" where every sample of the training split fits.
        limit: what a step may take on this rank, in bytes; None where the device said so.
        peak: what a step with this batch takes on this rank, in bytes.
        trials: of this rank.
    """

    batch_size: int
    micro_batch: int
    accumulate: int
    ranks: int
    ended: str
    limit: int | None
    peak: int | None
    trials: list[Trial]

    def as_dict(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def find_batch_size(run: Run, limit: int | None = None) -> FoundBatch:
    """Find the largest `trainer.batch_size` that fits; every rank takes part and gets the same one.

    Args:
        run: left as it is; its micro-batches per rank and step are those of `trainer.accumulate`.
        limit: bytes that a step may take on a rank: of a host what the process holds, of a GPU what torch reserves.
            None: nine tenths of a host's free memory, all of a GPU's.

    Raises:
        InputError: not even one sample fits, the training split is smaller than one sample for each micro-batch, or
            memory cannot be measured here.
    """
    parts, ranks = run.loader.accumulate, run.world.size
    most = len(run.loader.split) // (parts * ranks)
    if most == 0:
        problem = (
            f"{parts} micro-batches of {ranks} rank(s) are more than the {len(run.loader.split)} training samples."
        )
        raise InputError(problem, key="trainer.accumulate", value=parts)
    size, trials, own_limit = _alike(run, limit, most, lambda size: (size * parts, parts))
    last = next(trial for trial in reversed(trials) if trial.size <= size and trial.fits)
    ended = "data" if size == most else "memory"
    return FoundBatch(size * parts * ranks, size, parts, ranks, ended, own_limit, last.peak, trials)


def find_accumulate(run: Run, limit: int | None = None) -> int:
    """Find the fewest micro-batches per rank with which `trainer.batch_size` fits; the same on every rank.

    Args:
        run: left as it is.
        limit: as of `find_batch_size`.

    Raises:
        InputError: not even one sample fits, or memory cannot be measured here.
    """
    share = math.ceil(min(run.loader.batch_size, len(run.loader.split)) / run.world.size)
    size, _, _ = _alike(run, limit, share, lambda size: (share, math.ceil(share / size)))
    return math.ceil(share / size)


def _alike(
    run: Run, limit: int | None, most: int, cut: Callable[[int], tuple[int, int]]
) -> tuple[int, list[Trial], int | None]:  # fmt: skip
    """Each rank searches alone, and all take the smallest that one of them found."""

    def alone() -> tuple[int, list[Trial], int | None]:
        with trying(run, limit) as trials:
            tried = search(trials, most, cut)
            return tried[-1].size, tried, trials.meter.limit

    run.world.barrier()
    size, tried, own_limit = run.world.together(alone)
    smallest = -int(run.world.max_(torch.tensor(-size)).item()) if run.world.size > 1 else size
    return smallest, tried, own_limit


def search(trials: Trials, most: int, cut: Callable[[int], tuple[int, int]]) -> list[Trial]:
    """Try sizes until the largest that fits is known; the last trial is of it.

    Args:
        trials: takes steps.
        most: the largest size that is wanted.
        cut: size of a micro-batch -> samples of the step, and its micro-batches.

    Raises:
        InputError: one sample does not fit.
    """
    floor = trials.warm_up()
    tried: list[Trial] = []

    def attempt(size: int) -> Trial:
        tried.append(trials.take(size, *cut(size), foreseen=_foreseen(tried, floor, size)))
        return tried[-1]

    size: int | None = min(2, most)  # statistics over a batch have to have one
    while size is not None:
        attempt(size)
        size = _next(tried, most, trials.meter.limit, floor)
    size = max((trial.size for trial in tried if trial.fits), default=0)
    while size > 0 and not attempt(size).fits:
        size -= max(1, int(size * TOLERANCE))
    if size <= 0:
        raise InputError(_too_much(tried, trials.meter.limit), hint=REMEDIES)
    return tried


def _next(tried: list[Trial], most: int, limit: int | None, floor: int | None) -> int | None:
    """The size to try next; None where none is left that could be worth it."""
    best = max((trial.size for trial in tried if trial.fits), default=0)
    failed = [trial for trial in tried if not trial.fits]
    if best == 0:
        return 1 if tried[-1].size > 1 else None
    wanted = min(2 * best, most)
    if failed:
        worst = min(failed, key=lambda trial: trial.size)
        wanted = min((best + worst.size) // 2 if worst.peak is None else worst.size - 1, most)
    line = _line(tried, floor)
    if line is not None and limit is not None:
        start, slope = line
        wanted = wanted if slope <= 0 else min(wanted, int((limit - start) // slope))
    return wanted if wanted - best >= max(1, int(best * TOLERANCE)) else None


def _foreseen(tried: list[Trial], floor: int | None, size: int) -> int | None:
    """What a size takes: as the last time, or as the line says."""
    last = next((trial for trial in reversed(tried) if trial.size == size), None)
    line = _line(tried, floor)
    if line is None or last is not None:
        return None if last is None else last.peak
    return int(line[0] + line[1] * size)


def _line(tried: list[Trial], floor: int | None) -> tuple[float, float] | None:
    """Peak over size through the last two trials: its value at 0, and its slope; None where nothing is foreseen."""
    if floor is None:
        return None
    peaks = {0: floor} | {trial.size: trial.peak for trial in tried if trial.peak is not None}
    if len(peaks) < 2:
        return None
    (size, peak), (last_size, last_peak) = list(peaks.items())[-2:]
    slope = max(0.0, (last_peak - peak) / (last_size - size))
    return last_peak - slope * last_size, slope


def _too_much(tried: list[Trial], limit: int | None) -> str:
    peak = tried[-1].peak
    told = "there is not enough memory" if peak is None else f"it takes {peak / 2**20:,.0f} MiB"
    allowed = "" if limit is None or peak is None else f", and {limit / 2**20:,.0f} MiB are allowed"
    return f"not even a batch of one sample fits: {told}{allowed}."

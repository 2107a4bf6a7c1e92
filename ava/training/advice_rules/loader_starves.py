"""The loader is slower than the device."""

from __future__ import annotations

import os
from itertools import pairwise

from ava.registry import Fraction, PositiveFloat, PositiveInt, advice
from ava.training.history import Advice, History


@advice
def loader_starves(
    history: History, /, share: Fraction = 0.2, lines: PositiveInt = 3, each: PositiveFloat = 0.003,
    seconds: PositiveFloat = 0.5,
) -> Advice | None:  # fmt: skip
    """Steps wait for data, line after line.

    Args:
        history: the run so far.
        share: of the time that waiting may take.
        lines: one after another that show more, at least.
        each: seconds of waiting in a step that are worth a remark: to hand a batch over from another process takes
            nearly as long.
        seconds: of waiting in all these lines; less may be an accident of a busy machine.
    """
    rows = list(history.lines)
    count = 0
    while count < len(rows) and rows[-1 - count].get("loader_wait", 0.0) > share:
        count += 1
    waiting = rows[-count - 1 :] if count < len(rows) else rows
    if len(waiting) <= lines:
        return None
    waited = sum((b["time"] - a["time"]) * b["loader_wait"] for a, b in pairwise(waiting))
    elapsed, steps = waiting[-1]["time"] - waiting[0]["time"], waiting[-1]["step"] - waiting[0]["step"]
    if waited < max(seconds, each * steps):
        return None
    since, mean = int(waiting[1]["step"]), waited / elapsed
    text = f"the loader starves the device since step {since} ({mean:.0%} of the time is spent waiting for data): try "
    return Advice(text + _remedy(history), {"since": since, "loader_wait": mean, "seconds_a_step": waited / steps})


def _remedy(history: History) -> str:
    workers, cores = history.setting.workers, os.cpu_count() or 1
    if workers == 0:
        return f"trainer.workers={min(4, cores)}"
    if workers < cores:
        return f"trainer.workers={min(2 * workers, cores)} trainer.prefetch={max(8, history.setting.prefetch)}"
    return "to prepare the data beforehand, or fewer augmentations: all processor cores load already"

"""What a user should know of a run before it trains, though nothing is wrong."""

from __future__ import annotations

import math

from torch.nn.modules.batchnorm import _BatchNorm

from ava.checkpoint.checkpoint import steps
from ava.checkpoint.folder import POINTER
from ava.config.schema import ResumePlan
from ava.optimization.optimizers.wrappers.averaging import VARIANT as AVERAGE
from ava.training.state import Run


def notices(training: Run, saved: ResumePlan | None) -> list[str]:
    """Sentences for the start of a run.

    Args:
        training: the run, restored if it continues one.
        saved: the checkpoint it continues from, if any.
    """
    going_back = [] if saved is None or saved.new_run else _going_back(training, saved)
    layers = training.policy.remarks
    return [*layers, *_batch_statistics(training), *_averages(training), *_another_length(training, saved), *going_back]


def _batch_statistics(training: Run) -> list[str]:
    """Batch norm is the one layer that sees how a batch is divided."""
    parts = training.world.size * training.loader.accumulate
    if parts == 1 or not any(isinstance(module, _BatchNorm) for module in training.model.modules()):
        return []
    return [
        f"The model normalises over the batch: with {training.world.size} rank(s) and {training.loader.accumulate} "
        f"micro-batch(es) its statistics come from {training.loader.batch_size // parts} samples, not "
        f"{training.loader.batch_size}, and the result differs from that of one undivided batch. Group norm would not."
    ]


def _averages(training: Run) -> list[str]:
    """Statistics of batches belong to the weights that made them."""
    is_normed = any(isinstance(module, _BatchNorm) for module in training.model.modules())
    if not is_normed or not training.optimizer.speaks_of(AVERAGE):
        return []
    return [
        f"The model normalises over the batch, and {training.optimizer.name} evaluates averages of the weights: with "
        "the statistics of the weights that train, which differ from theirs. Group norm would not."
    ]


def _another_length(training: Run, saved: ResumePlan | None) -> list[str]:
    """A schedule that was laid out over another number of steps than it is now."""
    schedule = training.scheduler
    former, now = schedule.former_total_steps, schedule.total_steps
    if saved is None or former is None or former == now:
        return []
    step = training.step
    was, is_now = (schedule.at(step, total)[0].get("lr") for total in (former, now))
    if was is None or is_now is None or math.isclose(was, is_now, rel_tol=1e-9):
        return [f"The training has {now:,} steps in place of {former:,}; the schedule goes on from the rate it had."]
    said = (
        f"The schedule was laid out over {former:,} steps and is now over {now:,}: the learning rate goes on at "
        f"{is_now:.4g}, where it would have been {was:.4g}."
    )
    steady = [s for s in steps(saved.checkpoint.parent) if s < step and schedule.at(s, former) == schedule.at(s, now)]
    if schedule.cooldown_start is not None and steady:
        said += f" To go on as if it had not yet decayed, resume from checkpoints/step-{max(steady)}."
    return [said]


def _going_back(training: Run, saved: ResumePlan) -> list[str]:
    """Continuing from another checkpoint than the newest."""
    folder = saved.checkpoint.parent
    known = steps(folder)
    pointer = folder / POINTER
    pointed = pointer.read_text(encoding="utf-8").strip() if pointer.is_file() else ""
    found = []
    if pointed and pointed not in {f"step-{step}" for step in known}:
        found.append(
            f"The newest checkpoint, {pointed}, is missing or not complete: continuing from step {training.step}."
        )
    if max(known, default=0) > training.step:
        found.append(
            f"Continuing from step {training.step}: what this run did after it, up to step {max(known)}, will be "
            "replaced. To keep it, give another run_dir."
        )
    return found

"""What fits into memory: the largest batch, or the fewest micro-batches of one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ava.checkpoint import atomic
from ava.checkpoint.checkpoint import load
from ava.config.launch import claimed, launched
from ava.config.parts import build_run
from ava.config.schema import Config, ResumePlan
from ava.distributed.world import World
from ava.errors import InputError
from ava.training.batch_size import FoundBatch, find_accumulate
from ava.training.batch_size import find_batch_size as largest_batch


def find_batch_size(config: Config, *, saved: ResumePlan | None, limit: int | None) -> tuple[FoundBatch, Path] | None:
    """Only look for the largest batch that fits, and write `batch_size.json` into the run directory.

    Args:
        config: the checked configuration.
        saved: the checkpoint from which to look, if any.
        limit: bytes that a step may take on each rank; None leaves that to the device.

    Returns:
        What was found and where it was written; None on ranks other than 0.

    Raises:
        InputError: as `run`, or nothing fits.
    """
    if config.trainer.accumulate == "auto":
        problem = "asks for the fewest micro-batches of trainer.batch_size; this looks for the largest batch."
        raise InputError(problem, key="trainer.accumulate", value="auto", hint="Give a number, or leave it out.")
    with launched(config) as (config, world, _):
        training, _ = build_run(uncompiled(config), world)
        if saved is not None:
            world.together(lambda: training.restore(load(saved.checkpoint)))
        with claimed(config, saved, world) as folder:
            found = largest_batch(training, limit)
            if world.is_main:
                atomic.write_text(folder / "batch_size.json", json.dumps(found.as_dict(), indent=1) + "\n")
        return (found, folder) if world.is_main else None


def fit_accumulate(config: Config, world: World) -> tuple[Config, list[str]]:
    """Put a number where `trainer.accumulate=auto` stands: the fewest micro-batches that fit.

    Returns:
        The configuration with the number, and a sentence about it for the start of the run.

    Raises:
        InputError: not even one sample fits, or memory cannot be measured here.
    """
    if config.trainer.accumulate != "auto":
        return config, []
    training, _ = build_run(uncompiled(config), world)
    number = find_accumulate(training)
    share = -(-config.trainer.batch_size // (world.size * number))
    parts = "one micro-batch" if number == 1 else f"{number} micro-batches"
    said = f"trainer.accumulate=auto: {parts} of up to {share} samples on each rank will fit into memory."
    return dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, accumulate=number)), [said]


def uncompiled(config: Config) -> Config:
    """The same training as it is tried: nothing is compiled or recorded for sizes that may not stay."""
    trainer = dataclasses.replace(config.trainer, compile=False, compile_mode="default", cuda_graphs=False)
    return dataclasses.replace(config, trainer=trainer)

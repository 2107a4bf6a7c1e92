"""What every command that trains does first: join the ranks, set kernels, decide what the device leaves open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ava.config.paths import default_run_dir
from ava.config.schema import Config, ResumePlan
from ava.config.settle import settle
from ava.distributed.world import World, join
from ava.reporting.run_directory import RunDirectory
from ava.training.determinism import deterministic_kernels
from ava.training.kernels import kernel_settings


@contextmanager
def launched(config: Config) -> Iterator[tuple[Config, World, list[str]]]:
    """The ranks of this launch, as long as they work together.

    Yields:
        The configuration as the device wants it, the ranks, and sentences for the start of a run.

    Raises:
        InputError: there is no such device, or it cannot do what is asked.
    """
    with (
        join(config.trainer.device, config.distributed.timeout_s, config.distributed.backend) as world,
        deterministic_kernels(config.trainer.deterministic),
    ):
        config, remarks = settle(config, world.device)
        with kernel_settings(config.trainer.cudnn_benchmark, tf32=config.precision.name == "tf32"):
            yield config, world, remarks


@contextmanager
def claimed(config: Config, saved: ResumePlan | None, world: World) -> Iterator[Path]:
    """The run directory, locked by rank 0 as long as the run lasts; its path on every rank."""
    held: list[RunDirectory] = []

    def claim() -> Path:
        if saved is not None and not saved.new_run:
            held.append(RunDirectory.open(saved.run_dir))
        elif config.run_dir is not None:
            # A run that `resume=auto` was to continue may have died before its first checkpoint.
            begun = config.resume == "auto" and (Path(config.run_dir) / "config.yaml").exists()
            held.append((RunDirectory.open if begun else RunDirectory.create)(Path(config.run_dir)))
        else:
            held.append(RunDirectory.unique(default_run_dir(config.task.name, config.optimizer.name, datetime.now())))
        return held[0].root

    try:
        yield world.decide(claim)
    finally:
        for directory in held:
            directory.release()

"""Ava trains PyTorch models from a configuration and keeps the run alive.

    summary = ava.train(["optimizer=lion", "scheduler=onecycle", "seed=1"])

runs what `ava-train optimizer=lion scheduler=onecycle seed=1` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["__version__", "load_exported", "train"]

__version__ = "0.1.0"


def train(overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Compose a configuration, check it, train, and return the summary of the run.

    Args:
        overrides: what would stand on the command line, such as `["optimizer=lion", "trainer.max_steps=100"]`.
        config_dirs: directories with configuration files of your own.

    Returns:
        What the run's `summary.json` holds.

    Raises:
        ava.errors.InputError: something in the configuration cannot be; nothing was written.
        ava.errors.TrainingFailed: training went wrong past help.
        ava.errors.Interrupted: a signal ended it, after a checkpoint.
    """
    from ava.config.paths import check_config_dirs
    from ava.config.places import check_places
    from ava.config.resume import prepare

    config, plan = prepare(overrides, check_config_dirs([str(folder) for folder in config_dirs]))
    check_places(config, plan)
    from ava.config.build import run

    return run(config, saved=plan)


def load_exported(
    folder: str | Path, *, backend: str = "auto", device: str = "cpu", plugins: Sequence[str] = ()
) -> nn.Module:
    """Load the model that `ava export` wrote; nothing in the directory is executed.

    Args:
        folder: the directory.
        backend: what is to run quantized layers: "auto", "torch.ao" or "torchao".
        device: where the model is to run.
        plugins: modules that the run was trained with: only those named here are imported.

    Returns:
        The model in evaluation mode.

    Raises:
        ava.errors.InputError: it is no such directory, it needs plugins, or nothing here runs it.
    """
    from ava.config.exporting import load_exported as load

    return load(folder, backend=backend, device=device, plugins=plugins)

"""What a configuration is, once it has been checked: plain frozen dataclasses.

A section that Ava itself owns (`trainer`, `checkpoint`, ...) is a dataclass whose annotations say what is
allowed. A section that a registered part owns (`optimizer`, `model`, ...) is a `Part`: its name and the options
its signature declares. Both are checked by the same function, `ava.config.validate.validate`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Lt

from ava import registry
from ava.config.sections import (
    Checkpoint,
    Distributed,
    Health,
    LRFinder,
    Precision,
    Recovery,
    Sweep,
    Trainer,
)
from ava.registry import Name

Seed = Annotated[int, Ge(0), Lt(2**63)]
"""What every generator can be started from."""


@dataclass(frozen=True)
class Part:
    """A registered part and every option of it.

    Attributes:
        name: its name in the registry.
        options: the keywords its builder gets, defaults included.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Config:
    """One run, entirely.

    Attributes:
        seed: of every random number.
        run_dir: where the run is written; None gives outputs/<date>/<time>-<task>-<optimizer>.
        resume: None, "auto", a run directory or a checkpoint directory.
        plugins: modules that register further parts.
        logger: names of loggers.
    """

    task: Part
    model: Part
    data: Part
    optimizer: Part
    scheduler: Part
    surgery: Part
    seed: Seed = 0
    run_dir: Name | None = None
    resume: Name | None = None
    plugins: tuple[Name, ...] = ()
    logger: tuple[Name, ...] = ("tensorboard",)
    trainer: Trainer = field(default_factory=Trainer)
    precision: Precision = field(default_factory=Precision)
    health: Health = field(default_factory=Health)
    recovery: Recovery = field(default_factory=Recovery)
    lr_finder: LRFinder = field(default_factory=LRFinder)
    distributed: Distributed = field(default_factory=Distributed)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    sweep: Sweep = field(default_factory=Sweep)

    def as_dict(self) -> dict[str, Any]:
        """Spell the configuration as plain nested dicts and lists, as a file does."""
        return {
            f.name: _plain(getattr(self, f.name))
            for f in sorted(dataclasses.fields(self), key=lambda f: _ORDER.index(f.name))
        }


@dataclass(frozen=True)
class ResumePlan:
    """From where a run continues.

    Attributes:
        checkpoint: the checkpoint to start from.
        run_dir: the directory the run is written to.
        new_run: whether `run_dir` is a new run that only starts from the checkpoint, rather than the checkpoint's own.
    """

    checkpoint: Path
    run_dir: Path
    new_run: bool


SECTIONS: dict[str, type[Any]] = {
    "trainer": Trainer, "precision": Precision, "health": Health, "recovery": Recovery,
    "lr_finder": LRFinder,
    "distributed": Distributed, "checkpoint": Checkpoint, "sweep": Sweep,
}  # fmt: skip
"""The sections that Ava itself owns."""
PARTS: dict[str, registry.Registry] = {
    "task": registry.task, "model": registry.model, "data": registry.data, "optimizer": registry.optimizer,
    "scheduler": registry.scheduler, "surgery": registry.surgery,
}  # fmt: skip
"""The sections that a registered part owns."""

_ORDER = [
    "seed", "run_dir", "resume", "plugins", "logger", "task", "model", "data", "trainer", "optimizer", "scheduler",
    "precision", "health", "surgery", "recovery", "lr_finder", "distributed", "checkpoint", "sweep",
]  # fmt: skip
"""The order in which a file spells the configuration: what a reader looks for first."""


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return {"name": value.name} | {key: _plain(option) for key, option in value.options.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value

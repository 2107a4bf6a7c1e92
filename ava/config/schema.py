"""What a configuration is, once it has been checked: plain frozen dataclasses.

A section that Ava itself owns (`trainer`, `checkpoint`, ...) is a dataclass whose annotations say what is
allowed. A section that a registered part owns (`optimizer`, `model`, ...) is a `Part`: its name and the options
its signature declares. Both are checked by the same function, `ava.config.validate.validate`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from ava import registry
from ava.registry import Name, NonNegativeInt, PositiveFloat, PositiveInt

Average = Annotated[float, Gt(0), Lt(1)]
"""The weight of the past in an average that someone asked for: 0 and 1 would both be no average."""

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
class Trainer:
    """How long to train, on what, and what to do on the way.

    Attributes:
        max_steps: optimizer steps after which to stop; None leaves it to `max_epochs`.
        max_epochs: passes over the training data after which to stop; the first limit reached counts.
        batch_size: samples of one optimizer step, over all ranks.
        accumulate: micro-batches into which each rank cuts its share of a batch.
        eval_every: steps between evaluations; 0 evaluates only at the end.
        log_every: steps between two logged steps.
        device: where to train; auto takes an accelerator if there is one.
        deterministic: only deterministic kernels.
        compile: compile the model.
        clip: the gradient clipping's name in the registry.
        clip_norm: the clipping's threshold, where it has one; None takes its own default.
        clip_options: the clipping's other options.
        ema_decay: weight of the past in the average of the weights; None keeps no average.
        early_stop_patience: evaluations without improvement after which to stop; None never does.
        activation_checkpointing: recompute the blocks' activations in the backward pass.
        profile: write a profiler trace into the run directory.
        workers: processes that load data; 0 loads in the training process.
    """

    max_steps: PositiveInt | None = None
    max_epochs: PositiveInt | None = None
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    eval_every: NonNegativeInt = 0
    log_every: PositiveInt = 10
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    compile: bool = False
    clip: Name = "norm"
    clip_norm: PositiveFloat | None = None
    clip_options: dict[str, Any] = field(default_factory=dict)
    ema_decay: Average | None = None
    early_stop_patience: PositiveInt | None = None
    activation_checkpointing: bool = False
    profile: bool = False
    workers: NonNegativeInt = 0


@dataclass(frozen=True)
class Precision:
    """The arithmetic of the forward and backward pass."""

    name: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Health:
    """What is measured of the gradients, and what happens when one is not finite.

    Attributes:
        on_nonfinite: skip leaves such a step out and goes on; raise ends the run; rollback goes back to where the log
            was last read, and on with other samples.
        max_consecutive: so many such steps in a row are left out (or gone back from) before the run ends.
        statistics: mean, spread, extremes and zeros of the gradients in each logged step.
        detail_every: steps between two looks at each layer; 0 never looks.
        anomaly: find the operation that makes the first NaN or infinity; slow.
    """

    on_nonfinite: Literal["skip", "raise", "rollback"] = "raise"
    max_consecutive: NonNegativeInt = 10
    statistics: bool = True
    detail_every: NonNegativeInt = 0
    anomaly: bool = False


@dataclass(frozen=True)
class Recovery:
    """What happens when training goes wrong."""

    name: Literal["off"] = "off"


@dataclass(frozen=True)
class LRFinder:
    """The LR range test: a short training with a rising rate, to see which rate is good.

    Attributes:
        enabled: test before the training, and train with what is suggested in place of `optimizer.lr`.
        min_lr: the test's first rate, in units of `optimizer.lr`.
        max_lr: its last rate.
        num_steps: optimizer steps from one to the other.
        smoothing_factor: weight of the new loss in the moving average.
        diverge_factor: the test ends where the average exceeds its lowest value so many times.
        method: which of the suggestions counts.
        probe_steps: length of the short trainings that the method probes compares, if num_steps is no less.
        seeds: how often to test, each time with other samples.
    """

    enabled: bool = False
    min_lr: PositiveFloat = 1e-7
    max_lr: PositiveFloat = 10.0
    num_steps: Annotated[int, Ge(10)] = 100
    smoothing_factor: Annotated[float, Gt(0), Le(1)] = 0.05
    diverge_factor: Annotated[float, Gt(1)] = 4.0
    method: Literal["probes", "valley", "steepest", "minimum"] = "probes"
    probe_steps: Annotated[int, Ge(10)] = 50
    seeds: PositiveInt = 3


@dataclass(frozen=True)
class Distributed:
    """How ranks work together.

    Attributes:
        backend: auto takes nccl on accelerators and gloo elsewhere.
        timeout_s: seconds after which a rank that waits for another gives up.
    """

    backend: Literal["auto", "gloo", "nccl"] = "auto"
    timeout_s: PositiveInt = 600


@dataclass(frozen=True)
class Checkpoint:
    """When to save, and what to keep.

    Attributes:
        every: steps between checkpoints; None saves with each evaluation.
        keep_last: how many of the newest to keep.
        keep_best: also keep the best one.
        monitor: the metric that says best; None takes the task's own.
        mode: whether less or more of `monitor` is better; None takes the task's own.
    """

    every: PositiveInt | None = None
    keep_last: PositiveInt = 2
    keep_best: bool = True
    monitor: Name | None = None
    mode: Literal["min", "max"] | None = None


@dataclass(frozen=True)
class Sweep:
    """How `-m` runs its jobs.

    Attributes:
        jobs: runs at the same time.
        dir: the sweep's directory; None gives outputs/<date>/<time>-sweep.
    """

    jobs: PositiveInt = 1
    dir: Name | None = None


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

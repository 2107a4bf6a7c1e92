"""All that a training is: what a step reads and changes, and what a checkpoint must hold.

A checkpoint restores every part of it bit for bit: weights, optimizer, schedule, averages, the position in the
data and the random numbers of every library and rank.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from ava import rng
from ava.data.loader import Batch, Position, TrainingLoader
from ava.distributed.world import World
from ava.errors import InputError
from ava.optimization.gradients.clip.clipping import Clip
from ava.optimization.gradients.health.detail.noise_scale import NoiseScale
from ava.optimization.gradients.surgery.reconciler import Reconciler
from ava.optimization.learning_rate.factors import Phase
from ava.optimization.learning_rate.scheduler import Scheduler
from ava.optimization.optimizers.composed import ComposedOptimizer
from ava.optimization.optimizers.wrappers.averaging import VARIANT as AVERAGE
from ava.optimization.optimizers.wrappers.ema import EMA
from ava.optimization.precision.policy import Policy
from ava.optimization.snapshot import Stateful
from ava.tasks.task import Task
from ava.training.compilation import Compilation
from ava.training.health import Watch

if TYPE_CHECKING:
    from ava.training.recovery.guard import Guard
    from ava.training.recovery.memory import Memory


class Passes(Protocol):
    """Forward and backward of a micro-batch in one call (`graphs.py`)."""

    def zero_grad(self) -> None:
        """Begin a step."""
        ...

    def __call__(self, batch: Batch, weight: float | torch.Tensor) -> dict[str, torch.Tensor]:
        """Add gradients of the summed losses times `weight`; objective -> its loss, detached."""
        ...


@dataclass
class Run:
    """One training, ready to go on from where it stands.

    Attributes:
        model: the plain module; its parameter names are the checkpoint's.
        network: what the step calls: `model`, compiled and wrapped for several ranks where asked.
        step: optimizer steps taken.
        position: samples taken.
        seconds: time spent training, in seconds, over all sessions of this run.
        best: the best value of the monitored metric so far and its step.
        stale: evaluations since then.
        evaluated: the step of the last evaluation.
        unheard: losses of steps that the schedule was not told yet, where losses drive it.
        watch: how closely gradients are looked at.
        surgery: how the gradients of several objectives become one; None adds the objectives up.
        nonfinite_in_a_row: steps up to the last one read whose gradients were not finite, one after another.
        rollbacks: times that the run went back for that since it last went well.
        noise: averages for the gradient noise scale.
        compilation: what compiling took; None where nothing is compiled.
        graphs: forward and backward as recorded; None where they run as written.
        offload: around forward passes: where activations go until the backward pass.
        guard: mends steps by themselves; None leaves them to `watch`.
        recovery: what recovery remembers, which going back does not undo; None where it never goes back.
    """

    task: Task
    model: nn.Module
    network: nn.Module
    optimizer: ComposedOptimizer
    scheduler: Scheduler
    policy: Policy
    clip: Clip
    loader: TrainingLoader
    world: World
    ema: EMA | None = None
    step: int = 0
    position: Position = field(default_factory=Position)
    seconds: float = 0.0
    best: tuple[float, int] | None = None
    stale: int = 0
    evaluated: int = 0
    unheard: list[float] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)
    surgery: Reconciler | None = None
    nonfinite_in_a_row: int = 0
    rollbacks: int = 0
    noise: NoiseScale = field(default_factory=NoiseScale)
    compilation: Compilation | None = None
    graphs: Passes | None = None
    offload: AbstractContextManager[object] = field(default_factory=nullcontext)
    guard: Guard | None = None
    recovery: Memory | None = None

    def __post_init__(self) -> None:
        # Walking over the modules in every step costs a small model some percent.
        self.parameters: list[torch.Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        self.buffers: list[torch.Tensor] = list(self.model.buffers())

    @property
    def is_compiled(self) -> bool:
        """Whether steps call what `torch.compile` made of the model."""
        # Importing the class to ask for it would cost every run 0.8 s.
        return any(hasattr(module, "_orig_mod") for module in self.network.modules())

    @property
    def phase(self) -> Phase:
        """Where the next step lies in the schedule: "warmup", "main" or "cooldown"."""
        return self.scheduler.phase

    def stateful(self) -> dict[str, Stateful]:
        """What every step changes besides model, optimizer, schedule and averages; by its section in a checkpoint."""
        parts = {"clip": self.clip, "surgery": self.surgery, "precision": self.policy, "guard": self.guard}
        return {name: part for name, part in parts.items() if isinstance(part, Stateful)}

    def state(self) -> dict[str, Any] | None:
        """What a checkpoint holds, by section; None on ranks other than 0, which only contribute to it."""
        if self.recovery is not None:
            self.recovery.before_saving()
        random = self.world.gather(rng.capture())
        if not self.world.is_main:
            return None
        sections = {
            "model": self.model.state_dict(),
            "optimizer": named_optimizer_state(self.optimizer, self.model),
            "rng": {str(rank): state for rank, state in enumerate(random)},
            "progress": {
                "step": self.step,
                "epoch": self.position.epoch,
                "sample": self.position.sample,
                "num_samples": len(self.loader.split),
                "seconds": self.seconds,
                "best": self.best,
                "stale": self.stale,
                "evaluated": self.evaluated,
                "scheduler": self.scheduler.state_dict(),
                "unheard": self.unheard,
                "nonfinite_in_a_row": self.nonfinite_in_a_row,
                "rollbacks": self.rollbacks,
                "noise": self.noise.state_dict(),
            },
        }
        sections |= {name: held for name, part in self.stateful().items() if (held := part.state_dict())}
        if self.recovery is not None:
            sections["recovery"] = self.recovery.state_dict()
        if self.ema is not None:
            sections["ema"] = self.ema.state_dict()
        if self.optimizer.speaks_of(AVERAGE):
            # What was evaluated, for who uses the model; training goes on from the section "model".
            with self.optimizer.averaged():
                sections["averaged"] = {n: t.detach().clone() for n, t in self.model.state_dict().items()}
        return sections

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's sections.

        Raises:
            InputError: the checkpoint is of another model, optimizer or data set.
        """
        missing = [name for name in ("model", "optimizer", "progress", "rng") if name not in sections]
        if missing:
            raise InputError(
                f"the checkpoint has no section {', '.join(missing)}: it was not written by a training run."
            )
        progress = sections["progress"]
        if progress["num_samples"] != len(self.loader.split):
            raise InputError(
                f"the checkpoint was trained on {progress['num_samples']} samples, this data has "
                f"{len(self.loader.split)}.", hint="Resume with the data it was trained on.",
            )  # fmt: skip
        _load("model", lambda: self.model.load_state_dict(sections["model"]))
        load_named_optimizer_state(self.optimizer, self.model, sections["optimizer"])
        if (self.ema is not None) and "ema" not in sections:
            raise InputError("the checkpoint holds no weight averages.", hint="Resume with `trainer.ema_decay=null`.")
        if self.ema is not None:
            self.ema.load_state_dict(sections["ema"])
        self.step, self.seconds = progress["step"], progress["seconds"]
        self.position = Position(progress["epoch"], progress["sample"])
        self.best, self.stale, self.evaluated = progress["best"], progress["stale"], progress["evaluated"]
        self.scheduler.load_state_dict(progress["scheduler"])
        self.unheard = list(progress.get("unheard", []))
        self.nonfinite_in_a_row, self.rollbacks = progress.get("nonfinite_in_a_row", 0), progress.get("rollbacks", 0)
        if "noise" in progress:
            self.noise.load_state_dict(progress["noise"])
        for name, part in self.stateful().items():
            if name in sections:
                _load(name, functools.partial(part.load_state_dict, sections[name]))
        if self.recovery is not None and "recovery" in sections:
            _load("recovery", functools.partial(self.recovery.load_state_dict, sections["recovery"]))
            self.scheduler.rescale(self.recovery.multiplier)
        mine = sections["rng"].get(str(self.world.rank))
        if mine is not None:
            rng.restore(mine)


def named_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """An optimizer's state by parameter name, so that it survives another order of parameters or groups.

    Returns:
        {"class": name, "state": {name: {slot: value}}, "groups": [{hyperparameter: value, "names": [name, ...]}]}
    """
    names = {id(p): name for name, p in model.named_parameters()}
    plain = optimizer.state_dict()
    by_index: dict[int, str] = {}
    groups = []
    for live, group in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        members = [names[id(p)] for p in live["params"]]
        by_index |= dict(zip(group["params"], members, strict=True))
        hyper = {k: v for k, v in group.items() if k not in ("params", "param_names")}
        groups.append(hyper | {"names": members})
    state = {by_index[i]: slots for i, slots in plain["state"].items()}
    return {"class": type(optimizer).__name__, "state": state, "groups": groups}


def load_named_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, named: Mapping[str, Any]) -> None:
    """Load what `named_optimizer_state` gave. Hyperparameters stay as built (the user may have changed them, and a
    schedule sets them anew); what else an optimizer keeps in its groups, such as counters, is restored.

    Raises:
        InputError: the parameters or the optimizer are others.
    """
    if named.get("class") != type(optimizer).__name__:
        raise InputError(
            f"the checkpoint's optimizer is {named.get('class')}, this configuration's is {type(optimizer).__name__}.",
            hint="Resume with the optimizer it was trained with.",
        )
    plain = optimizer.state_dict()
    names = {id(p): name for name, p in model.named_parameters()}
    index: dict[str, int] = {}
    for live, group in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        index |= {names[id(p)]: i for p, i in zip(live["params"], group["params"], strict=True)}
    strangers = sorted(set(named["state"]) - set(index))
    if strangers:
        raise InputError(f"the checkpoint holds optimizer state for parameters that the model lacks: {strangers[:3]}.")
    plain["state"] = {index[name]: slots for name, slots in named["state"].items()}
    for group, saved in zip(plain["param_groups"], named["groups"], strict=False):
        group |= {k: v for k, v in saved.items() if k not in optimizer.defaults and not k.startswith(_OF_THE_SCHEDULE)}
    _load("optimizer", lambda: optimizer.load_state_dict(plain))


_OF_THE_SCHEDULE = ("names", "scheduler", "initial_")
"""What begins the names of group values that are built anew."""


def _load(part: str, load: Callable[[], Any]) -> None:
    try:
        load()
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"the checkpoint's {part} does not fit this configuration's: {reason[:300]}",
            hint=f"Resume with the {part} it was trained with.",
        ) from error

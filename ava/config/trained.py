"""The model that a run has trained, with its task: what a run directory holds, ready to be used.

The weights are those that were evaluated: averages where the run kept any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ava import registry
from ava.checkpoint.checkpoint import latest, load, read_manifest, steps
from ava.checkpoint.folder import resolve
from ava.config.plugins import load_plugins
from ava.config.saved import FILE, load_saved, read_saved
from ava.config.schema import Config
from ava.data.loader import Position, TrainingLoader, evaluation_batches
from ava.errors import InputError
from ava.optimization.precision.quantization.report import evaluating
from ava.tasks.task import Task
from ava.training.determinism import seed_everything

_LARGEST_BATCH = 64


@dataclass(frozen=True)
class Trained:
    """What a run has trained.

    Attributes:
        config: the run's configuration.
        checkpoint: the folder that the weights come from.
        section: which of its weights: "averaged" and "ema" are averages, "model" those of the last step.
        task: data and metrics.
        model: with those weights, in float32 and evaluation mode.
    """

    config: Config
    checkpoint: Path
    section: str
    task: Task
    model: nn.Module

    def metrics(self, model: nn.Module) -> dict[str, float]:
        """The task's metrics of a model over all validation samples, in float32."""
        device = next((tensor.device for tensor in self.model.parameters()), torch.device("cpu"))
        totals: dict[str, Tensor] = {}
        with evaluating(model), torch.no_grad():
            for batch in evaluation_batches(self.task.data.valid, batch_size=self.batch_size):
                for name, value in self.task.evaluate(model, _moved(batch, device)).items():
                    totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64, device=device)) + value
        return self.task.summarise({name: float(total) for name, total in totals.items()})

    def calibration(self, num_batches: int) -> list[dict[str, Tensor]]:
        """Batches of training data."""
        loader = TrainingLoader(self.task.data.train, batch_size=self.batch_size, seed=self.config.seed)
        fetched = (self.task.data.train.fetch(plan.shares[0], plan.epoch) for plan in loader.plans(Position()))
        return list(islice(fetched, num_batches))

    def example(self) -> Tensor:
        """Inputs of the first validation samples, on the model's device."""
        batch = next(iter(evaluation_batches(self.task.data.valid, batch_size=self.batch_size)))
        return batch["inputs"].to(next(self.model.parameters()).device)

    @property
    def batch_size(self) -> int:
        """Samples at once: as the training had them, within reason."""
        return min(self.config.trainer.batch_size, _LARGEST_BATCH)


def load_trained(
    path: Path, checkpoint: str | None = None, plugins: Sequence[str] = (), device: str = "cpu"
) -> Trained:
    """Read a run and build its model.

    Args:
        path: a run directory, or one of its checkpoints.
        checkpoint: "best", "latest" or "step-N"; None takes the best that is there, else the latest.
        plugins: modules that the run needs.
        device: where the model is to be.

    Raises:
        InputError: there is no such run or checkpoint, plugins are missing, or the data is not there.
    """
    folder, run = choose_checkpoint(path, checkpoint)
    config = load_config(run / FILE, plugins)
    seed_everything(config.seed)
    task = build_task(config)
    model = build_model(config, task.data.spec)
    section, weights = _read_weights(folder, run)
    try:
        if section == "ema":
            _load_averages(model, weights)
        else:
            model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder} does not fit the model of {run / FILE}: {reason}") from error
    return Trained(config, folder, section, task, model.float().to(device).eval())


def choose_checkpoint(path: Path, which: str | None) -> tuple[Path, Path]:
    """The checkpoint that is meant, and its run directory.

    Raises:
        InputError: there is none.
    """
    given = resolve(path)
    run = given.absolute().parent.parent
    if not (run / FILE).is_file():
        raise InputError(f"there is no {FILE} of a run in {run}.", hint="Give a run directory.")
    if given.absolute() == path.absolute() and which is None:
        return given, run
    folder = run / "checkpoints"
    known, newest = steps(folder), latest(folder)
    assert newest is not None, "resolve found one"
    if which == "latest":
        return newest, run
    if which in (None, "best"):
        best = _read(newest, "progress", run)["best"]
        if best is not None and best[1] in known:
            return known[best[1]], run
        if which is None:
            return newest, run
        problem = "the run kept no best checkpoint."
    else:
        named = {f"step-{step}": checkpoint for step, checkpoint in known.items()}
        if which in named:
            return named[which], run
        problem = "there is no such checkpoint."
    hint = f"There are: best, latest, {', '.join(f'step-{step}' for step in known)}."
    raise InputError(problem, key="--checkpoint", value=which, hint=hint)


def build_model(config: Config, spec: Any) -> nn.Module:
    """The model of a configuration, with random weights."""
    model: nn.Module = registry.model[config.model.name].load()(spec, **config.model.options)
    return model


def load_config(path: Path, plugins: Sequence[str]) -> Config:
    """A saved configuration.

    Raises:
        InputError: it needs plugins that were not named.
    """
    needed = read_saved(path).get("plugins") or []
    missing = [str(plugin) for plugin in needed if plugin not in plugins]
    if missing:
        problem = f"the run needs the plugins {', '.join(missing)}, which a file cannot import."
        raise InputError(problem, hint=f"Add `plugins=[{','.join(map(str, needed))}]`, in Python `plugins={needed}`.")
    load_plugins(plugins)
    return load_saved(path)


def build_task(config: Config) -> Task:
    """The task of a configuration, with its data."""
    data = registry.data[config.data.name].load()(config.seed, **config.data.options)
    task: Task = registry.task[config.task.name].load()(data, **config.task.options)
    return task


def _read_weights(folder: Path, run: Path) -> tuple[str, dict[str, Tensor]]:
    """The weights that were evaluated, and the section that holds them."""
    try:
        files = read_manifest(folder)["files"]
    except InputError as error:
        raise _with_remedy(error, run) from None
    section = next((name for name in ("averaged", "ema", "model") if f"{name}.safetensors" in files), None)
    if section is None:
        raise InputError(f"{folder} holds no weights: it was not written by a training run.")
    state = _read(folder, section, run)
    return section, state["averages"] if section == "ema" else state


def _read(folder: Path, section: str, run: Path) -> dict[str, Any]:
    """One section of a checkpoint: damage to the others does not matter."""
    try:
        state: dict[str, Any] = load(folder, [section])[section]
    except InputError as error:
        raise _with_remedy(error, run) from None
    return state


def _with_remedy(error: InputError, run: Path) -> InputError:
    """The same error of a checkpoint, told what to do where no run is resumed."""
    others = ", ".join(f"step-{step}" for step in steps(run / "checkpoints"))
    return InputError(error.problem, hint=f"Take another checkpoint with --checkpoint; there are: {others}.")


def _load_averages(model: nn.Module, averages: Mapping[str, Tensor]) -> None:
    """Averages hold a tied weight once, and buffers that no state dict keeps."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    lacking, strangers = sorted(own.keys() - averages.keys()), sorted(averages.keys() - own.keys())
    if lacking or strangers:
        raise RuntimeError(f"the averages lack {lacking[:3]} and have {strangers[:3]} besides")
    model.load_state_dict({name: averages[name] for name in model.state_dict() if name in averages}, strict=False)


def _moved(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in batch.items()}

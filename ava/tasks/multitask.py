"""Several objectives on one image: each has a head of its own on the model's shared trunk, and its own loss.

An objective says how large its head is, what it costs to answer wrongly and how well it was answered, image by
image. The task gives every loss by its name, so that `surgery=...` may reconcile their gradients; with `surgery=none`
their sum is minimised. A weight multiplies an objective's loss in training and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ava.data.source import Data, ImageSpec, Split
from ava.errors import InputError
from ava.tasks.baselines.gather import plain
from ava.tasks.baselines.linear import linear_model
from ava.tasks.baselines.majority import majority_class
from ava.tasks.task import Baseline, Batch, spec_of


class Objective(Protocol):
    """One thing to learn.

    Attributes:
        size: numbers in its head's output.
        target: what the batch calls the answers.
        measure: what `score` is called: "accuracy".
    """

    @property
    def size(self) -> int: ...  # noqa: D102

    @property
    def target(self) -> str: ...  # noqa: D102

    @property
    def measure(self) -> str: ...  # noqa: D102

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """What is minimised, of each image: (B, size) float32 -> (B,)."""
        ...

    def score(self, output: Tensor, batch: Batch) -> Tensor:
        """How well each image was answered: (B, size) float32 -> (B,)."""
        ...


@dataclass(frozen=True)
class Classes:
    """To choose one of `size` classes: cross-entropy in nats; the score is 1 for the right class."""

    size: int
    target: str
    measure: str = "accuracy"

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The cross-entropy of each image."""
        return cross_entropy(output, batch[self.target], reduction="none")

    def score(self, output: Tensor, batch: Batch) -> Tensor:
        """1 where the class is right, else 0."""
        return (output.argmax(dim=1) == batch[self.target]).float()


@dataclass(frozen=True)
class Picture:
    """To draw a picture of `size` numbers: the squared error over the picture's own squares; the score is this error.

        loss = scale * |output - picture|^2 / |picture|^2

    A black answer has the error 1, whatever the size and the brightness. A picture whose squares are less than one
    bright pixel's counts as that. At a scale of 10 the gradient of two digits' picture on a shared trunk is about two
    thirds as long as that of a digit's cross-entropy; unscaled it would hardly count in their sum.
    """

    size: int
    target: str
    scale: float = 10.0
    measure: str = "error"

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """The scaled error of each image."""
        return self.scale * self.score(output, batch)

    def score(self, output: Tensor, batch: Batch) -> Tensor:
        """The relative squared error of each image."""
        picture = batch[self.target].flatten(1)
        return (output - picture).square().sum(dim=1) / picture.square().sum(dim=1).clamp_min(1.0)


@dataclass(frozen=True)
class MultiTask:
    """Several objectives on the same images; the model's output is {objective: (B, size)}.

    Attributes:
        data: images whose spec names a head for each objective (`with_heads`).
        objectives: name -> what is to be learned.
        weights: name -> factor of its loss in training.
    """

    data: Data
    objectives: Mapping[str, Objective]
    weights: Mapping[str, float]
    monitor: str = "eval/loss"
    mode: Literal["min", "max"] = "min"

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Each objective's weighted loss, summed over the images, in float32."""
        outputs = _outputs(model, batch)
        return {
            name: self.weights[name] * objective.loss(outputs[name].float(), batch).sum()
            for name, objective in self.objectives.items()
        }

    def count(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch["inputs"])

    def evaluate(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The sums `loss` (of all objectives, unweighted), each objective's score, and `count`, 0-dim float64."""
        outputs = _outputs(model, batch)
        sums = {"loss": torch.zeros((), dtype=torch.float64, device=batch["inputs"].device)}
        for name, objective in self.objectives.items():
            output = outputs[name].float()
            sums["loss"] = sums["loss"] + objective.loss(output, batch).sum(dtype=torch.float64)
            sums[_key(name, objective)] = objective.score(output, batch).sum(dtype=torch.float64)
        return sums | {"count": torch.full_like(sums["loss"], len(batch["inputs"]))}

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """The means per image.

        Returns:
            `eval/loss`, the objectives' sum; `eval/accuracy`, the mean over those with classes; and of each objective
            `eval/<objective>_accuracy` or `eval/<objective>_error`.
        """
        scores = {_key(name, objective): objective for name, objective in self.objectives.items()}
        metrics = {f"eval/{key}": sums[key] / sums["count"] for key in scores}
        right = [metrics[f"eval/{key}"] for key, objective in scores.items() if objective.measure == "accuracy"]
        return {"eval/loss": sums["loss"] / sums["count"], "eval/accuracy": float(np.mean(right)), **metrics}

    def baselines(self) -> list[Baseline]:
        """Of each objective with classes, the majority class and a linear model."""
        found, spec = [], spec_of(self.data, ImageSpec, "")
        for name, objective in self.objectives.items():
            if objective.measure == "accuracy":
                one = replace(self.data, train=_one(self.data.train, objective), valid=_one(self.data.valid, objective))
                both = [majority_class(one), linear_model(one, spec)]
                found += [Baseline(f"{b.name}, {name}", f"eval/{_key(name, objective)}", b.value) for b in both]
        return found


def with_heads(data: Data, objectives: Mapping[str, Objective], remedy: str) -> Data:
    """The data, described so that a model gets a head for each objective.

    Args:
        data: images.
        objectives: name -> what is to be learned.
        remedy: which data does.

    Raises:
        InputError: it describes no images, or its batches lack answers; ends with `remedy`.
    """
    spec = spec_of(data, ImageSpec, remedy)
    given = data.train.fetch(np.zeros(1, dtype=np.int64), 0)
    missing = [objective.target for objective in objectives.values() if objective.target not in given]
    if missing:
        raise InputError(f"this task's images come with {', '.join(missing)}, and these do not.", hint=remedy)
    return replace(data, spec=replace(spec, heads={name: objective.size for name, objective in objectives.items()}))


@dataclass(frozen=True)
class _OneObjective:
    """A split, never augmented, whose targets are one objective's."""

    split: Split
    target: str

    def __len__(self) -> int:
        return len(self.split)

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, Tensor]:
        batch = self.split.fetch(indices, epoch)
        return {"inputs": batch["inputs"], "targets": batch[self.target]}


def _one(split: Split, objective: Objective) -> Split:
    return _OneObjective(plain(split), objective.target)


def _key(name: str, objective: Objective) -> str:
    return f"{name}_{objective.measure}"


def _outputs(model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
    """What the model says, by objective.

    Raises:
        InputError: the model has one output.
    """
    outputs = model(batch["inputs"])
    if not isinstance(outputs, dict):
        problem = "this model gives one output for an image, but the task needs one for each objective."
        raise InputError(problem, hint="A model for several tasks reads `spec.heads`, as ava.models.mlp does.")
    return outputs

"""Images into classes, by cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ava.data.source import Data, ImageSpec
from ava.registry import Fraction, task
from ava.tasks.baselines.linear import linear_model
from ava.tasks.baselines.majority import majority_class
from ava.tasks.sampling import draw
from ava.tasks.task import Baseline, Batch, Task, spec_of

_REMEDY = "Use data=digits or data=images path=FOLDER, or task=language_model."


@dataclass(frozen=True)
class Classification:
    """One class for each image; the model's output is (B, num_classes) logits.

    Attributes:
        data: labelled images.
        label_smoothing: the share of each training target that is spread evenly over all classes.
    """

    data: Data
    label_smoothing: float = 0.0
    monitor: str = "eval/accuracy"
    mode: Literal["min", "max"] = "max"

    def __post_init__(self) -> None:
        spec_of(self.data, ImageSpec, _REMEDY)

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy, summed over the images, in float32."""
        logits = model(batch["inputs"]).float()
        return {"loss": cross_entropy(logits, batch["targets"], reduction="sum", label_smoothing=self.label_smoothing)}

    def sampled_losses(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The cross-entropy of classes drawn from the model's own output, summed over the images, in float32."""
        logits = model(batch["inputs"]).float()
        return {"loss": cross_entropy(logits, draw(logits, generator), reduction="sum")}

    def count(self, batch: Batch) -> int:
        """The number of images."""
        return len(batch["targets"])

    def evaluate(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The sums `loss` (without smoothing), `correct` and `count`, each 0-dim float64."""
        targets = batch["targets"]
        logits = model(batch["inputs"]).float()
        return {
            "loss": cross_entropy(logits, targets, reduction="sum").double(),
            "correct": (logits.argmax(dim=1) == targets).sum(dtype=torch.float64),
            "count": torch.full((), len(targets), dtype=torch.float64, device=targets.device),
        }

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """`eval/loss` in nats per image, `eval/accuracy` from 0 to 1."""
        return {"eval/loss": sums["loss"] / sums["count"], "eval/accuracy": sums["correct"] / sums["count"]}

    def baselines(self) -> list[Baseline]:
        """The majority class and a linear model."""
        return [majority_class(self.data), linear_model(self.data, spec_of(self.data, ImageSpec, _REMEDY))]


@task(kind="images", general=True)
def classification(data: Data, /, label_smoothing: Fraction = 0.0) -> Task:
    """Image classification on any labelled images (data=images path=FOLDER).

    Args:
        data: labelled images.
        label_smoothing: the share of each training target that is spread evenly over all classes.
    """
    return Classification(data, label_smoothing)

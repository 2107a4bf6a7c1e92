"""Everything that one detailed step found, and its line of the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ava.optimization.gradients.health.detail.activations import ActivationWatch
from ava.optimization.gradients.health.detail.layers import LayerStatistics
from ava.optimization.gradients.health.detail.noise_scale import NoiseScale
from ava.optimization.gradients.health.detail.small_batch import Draw


@dataclass(frozen=True)
class Detail:
    """What a detailed step found, not yet read.

    Attributes:
        step: its number, counted from 1.
        layers: by parameter; the same on all ranks.
        activations: by module; each rank's own part. None where networks are compiled.
        draw: for the gradient noise scale; None where there is nothing to draw from.
    """

    step: int
    layers: LayerStatistics
    activations: ActivationWatch | None = None
    draw: Draw | None = None

    def read(
        self, noise: NoiseScale, sum_: Callable[[Tensor], Tensor], max_: Callable[[Tensor], Tensor]
    ) -> dict[str, Any]:
        """The line of the log; waits for the device. Every rank calls it, in the order of steps.

        Args:
            noise: the averages so far; this step's draw goes into them.
            sum_: adds a tensor up over ranks, in place.
            max_: its maximum over ranks, in place.

        Returns:
            `step`, `noise_scale` (None where it is not known), `layers` and `activations`, by name.
        """
        estimates = None if self.draw is None else self.draw.estimates(sum_)
        if estimates is not None:
            noise.update(*estimates)
        activations = {} if self.activations is None else self.activations.read(sum_, max_)
        return {
            "step": self.step, "noise_scale": noise.value(), "layers": self.layers.read(), "activations": activations
        }  # fmt: skip

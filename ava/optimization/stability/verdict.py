"""What one step looked like to the detectors.

Where everything is on the CPU the numbers are Python's; on an accelerator they are 0-dim tensors that stay there, so
that asking for a verdict never makes the host wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

Number: TypeAlias = float | Tensor
"""A Python float, or a 0-dim tensor that nobody has read."""


@dataclass(frozen=True)
class Verdict:
    """The judgement of one step.

    Attributes:
        hindrance: how much stands in the way of training, in [0, 1]: `1 - prod(1 - severity)` over all causes.
        causes: detector -> severity in [0, 1].
        gradient_factor: what to multiply all gradients with to bring an outlying norm to the expected one plus
            `clip_sigmas` deviations; 1 where it is no outlier.
        skip: 1 where the step has to be left out: something is not finite, or the loss is an outlier; else 0.
        is_bad: 1 where an acute cause (not finite, explosion, loss spike) was found in this step, else 0.
        persistent: 1 where that has lasted, or loss or norm has moved for good, else 0.
        expected_norm: of the gradient in this step; NaN while unknown.
        expected_loss: the same of the loss.
        vector: on an accelerator, all `numbers()` in their order, 1-D: to be read in one transfer; None on the CPU.
    """

    hindrance: Number
    causes: Mapping[str, Number]
    gradient_factor: Number
    skip: Number
    is_bad: Number
    persistent: Number
    expected_norm: Number
    expected_loss: Number
    vector: Tensor | None = None

    def numbers(self) -> dict[str, Number]:
        """All of it flat, for logs: "hindrance", "hindrance/explosion", ..., "skip"."""
        flat: dict[str, Number] = {"hindrance": self.hindrance}
        flat |= {f"hindrance/{name}": severity for name, severity in self.causes.items()}
        return flat | {
            "gradient_factor": self.gradient_factor, "skip": self.skip, "is_bad": self.is_bad,
            "persistent": self.persistent, "expected_norm": self.expected_norm, "expected_loss": self.expected_loss,
        }  # fmt: skip

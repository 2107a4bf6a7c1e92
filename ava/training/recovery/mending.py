"""What was seen and done in one step."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ava.optimization.stability.verdict import Number, Verdict

OWN = ("loss", "norm", "skipped", "finite", "update", "update_factor", "damaged", "rate", "size")
OF_VERDICT = ("hindrance", "gradient_factor", "is_bad", "skip", "persistent", "expected_norm", "expected_loss")


@dataclass
class Mending:
    """What was seen and done in one step; numbers of the host on a CPU, else 0-dim tensors that nobody has read.

    Attributes:
        verdict: of the detectors; None where the step says nothing: an overflow of the loss scale, or too few samples.
        loss: the mean over all ranks.
        norm: of the gradient.
        skipped: 1 where the step was left out; what the optimizer is told.
        finite: 1 where gradient and loss were.
        update: length of the update, before it was shrunk; 0 where there was none.
        update_factor: what it was multiplied with.
        damaged: 1 where a rank's weights had changed since the last step, and were put back.
        rate: the learning rate that was meant; 1 where the optimizer chooses it.
        size: the norm of all weights after the step.
    """

    verdict: Verdict | None
    loss: Number
    norm: Number
    skipped: Tensor
    finite: Number
    update: Number = 0.0
    update_factor: Number = 1.0
    damaged: Number = 0.0
    rate: float = 1.0
    size: Number = 0.0

    def numbers(self) -> dict[str, Number]:
        """All of it by name; of a verdict that there is not, NaN."""
        own: dict[str, Number] = {key: getattr(self, key) for key in OWN}
        verdict = self.verdict
        return own | {key: math.nan if verdict is None else getattr(verdict, key) for key in OF_VERDICT}


def without_overflow(made: Mending, overflowed: Tensor) -> None:
    """On an accelerator: where a gradient was only too large with the loss scale on it, the step was as any other."""
    verdict = made.verdict
    assert verdict is not None
    made.finite = torch.where(overflowed, 1.0, torch.as_tensor(made.finite))
    calm: dict[str, Any] = {
        key: torch.where(overflowed, 0.0, getattr(verdict, key)) for key in ("is_bad", "skip", "persistent")
    }
    factor = torch.where(overflowed, 1.0, torch.as_tensor(verdict.gradient_factor))
    made.verdict = dataclasses.replace(verdict, gradient_factor=factor, **calm)

"""The loss of the step to come, as it is told: once, or once for each of several accumulated batches."""

from __future__ import annotations

import torch
from torch import Tensor

from ava.optimization.stability.given import measured
from ava.optimization.stability.verdict import Number


class LossSoFar:
    """Adds up what is told until the step takes its mean."""

    def __init__(self) -> None:
        self._sum: Number = 0.0
        self._count = 0

    def add(self, loss: Number, *, reduced: bool) -> None:
        """One more.

        Args:
            loss: a number, or a tensor of one element on any device; it is not read.
            reduced: whether all ranks tell the same; else it is averaged over the default process group.

        Raises:
            InputError: it is no number.
        """
        loss = measured("loss", loss, may_be_negative=True)
        self._sum = self._sum + (loss if reduced else mean_over_ranks(loss))
        self._count += 1

    def take(self, device: torch.device) -> Number | None:
        """The mean of what was told, for the device; None where nothing was. What comes next is the next step's."""
        if not self._count:
            return None
        mean = self._sum / self._count
        self._sum, self._count = 0.0, 0
        return on(device, mean)


def on(device: torch.device, value: Number) -> Number:
    """A float for a processor, a 0-dim tensor there for an accelerator."""
    if device.type == "cpu":
        return float(value)
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return torch.full((), value, dtype=torch.float32, device=device)


def mean_over_ranks(loss: Number) -> Number:
    """The loss averaged over the default process group, where there is one of several ranks."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return loss
    device = loss.device if isinstance(loss, Tensor) else torch.device("cpu")
    if device.type == "cpu" and "gloo" not in distributed.get_backend():
        device = torch.device(torch.accelerator.current_accelerator() or "cpu")
    total = torch.as_tensor(loss, dtype=torch.float64, device=device).clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()

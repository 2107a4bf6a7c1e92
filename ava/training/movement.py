"""How far the weights move, whatever the optimizer: a sample of them, compared from one logged line to the next.

    moved = ||w_now - w_then|| / ||w_now||        over the sample

The sample is some hundred numbers, evenly spread over at most 16 parameters: copying them costs microseconds, and tells
a rate that is far too low (nothing moves) from one that is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

NUM_PARAMETERS, NUM_NUMBERS = 16, 64
"""At most so many parameters, and of each so many numbers."""


class Movement:
    """Remembers the sample of the last line.

    Args:
        parameters: those that are trained; of a sharded one, this rank's shard is looked at.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        large = [p for p in parameters if p.dim() > 1] or list(parameters)
        step = -(-len(large) // NUM_PARAMETERS) or 1
        self.parameters = large[::step]
        self._before: Tensor | None = None
        self._now: Tensor | None = None

    @torch.no_grad()
    def since_last(self) -> list[Tensor]:
        """How far the sample moved since the last line, and how large it is: two norms, 0-dim, on the device and not
        read; empty before the first line.
        """
        self._now = torch.cat([_some(p) for p in self.parameters]) if self.parameters else torch.zeros(0)
        if self._before is None or not self._now.numel():
            return []
        return [(self._now - self._before).norm(), self._now.norm()]

    def end_line(self) -> None:
        """A line is written: the next one tells of how far the weights go from where they were looked at last."""
        self._before = self._now


def _some(parameter: Tensor) -> Tensor:
    """Numbers of it with an even distance, as a copy in float32."""
    local = getattr(parameter, "_local_tensor", parameter).detach().reshape(-1)
    return local[:: max(1, local.numel() // NUM_NUMBERS)][:NUM_NUMBERS].float().clone()

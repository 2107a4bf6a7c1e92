"""What forward passes write into a model's buffers, as BatchNorm its statistics, undone where a step is skipped.

A sample that is not a number makes running means so for good: every evaluation after it would be, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KeptBuffers:
    """The buffers of a model as they stand.

    Args:
        buffers: the tensors that forward passes write into.
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self._kept = [(buffer, buffer.detach().clone()) for buffer in buffers]

    @torch.no_grad()
    def put_back(self, skipped: Tensor) -> None:
        """Make them what they were where the step is skipped; an accelerator is not waited for.

        Args:
            skipped: 0-dim, 0 where the step is taken.
        """
        if skipped.device.type == "cpu" and not skipped.numpy():  # memory of the host, which is there already
            return
        for buffer, before in self._kept:
            buffer.copy_(torch.where(skipped.to(buffer.device) == 0, buffer, before))

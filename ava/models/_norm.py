"""Normalisation of feature maps.

Group norm looks at one sample at a time: its output is the same whatever else is in the batch, so neither
micro-batches nor ranks change the training. Batch norm does not have that property and must be asked for.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import nn


def channel_norm(channels: int, norm: Literal["group", "batch"] = "group") -> nn.Module:
    """A normalisation of (B, C, H, W) feature maps.

    Args:
        channels: C.
        norm: "group" for at most 8 groups, of at least 2 channels each where C > 1: a group of one channel in a
            map of one pixel would always be zero; "batch" for batch norm.
    """
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(_count_groups(channels), channels)


def _count_groups(channels: int) -> int:
    """The largest power of two up to 8 that cuts `channels` into equal groups of at least 2."""
    groups = math.gcd(8, channels)
    return groups if channels // groups >= 2 or groups == 1 else groups // 2

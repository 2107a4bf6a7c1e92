"""The last layer of an image model: one linear layer, or one for each output that the data or the task names.

Several heads share all that lies below them. With one head a model's parameters are called as they always were,
`head.weight` and `head.bias`; with several each has its own, such as `head.outputs.left.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ava.data.source import ImageSpec

Output = torch.Tensor | dict[str, torch.Tensor]
"""(B, num_classes) logits; or, where the spec names heads, name -> (B, size)."""


def head(features: int, spec: ImageSpec) -> nn.Module:
    """The layer from (B, features) to the output.

    Args:
        features: what the trunk gives for each image.
        spec: the number of classes, or the heads in their place.
    """
    return nn.Linear(features, spec.num_classes) if spec.heads is None else Heads(features, spec.heads)


class Heads(nn.Module):
    """One linear layer for each named output; (B, features) -> {name: (B, size)}.

    Args:
        features: what the shared trunk gives for each image.
        sizes: name -> numbers in that output.
    """

    def __init__(self, features: int, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.outputs = nn.ModuleDict({name: nn.Linear(features, size) for name, size in sizes.items()})

    def forward(self, features_BC: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: layer(features_BC) for name, layer in self.outputs.items()}

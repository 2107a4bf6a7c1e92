"""A multi-layer perceptron: the plainest model of an image."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from ava.data.source import ImageSpec
from ava.models._head import Output, head
from ava.registry import NonNegativeInt, PositiveInt, model


@model(kind="images")
class MLP(nn.Module):
    """Fully connected layers with layer norm on the flattened image; (B, C, H, W) -> (B, num_classes) logits.

    Args:
        spec: the images' channels, height and width, and the number of classes.
        width: size of each hidden layer.
        depth: number of hidden layers; 0 gives a linear model.
    """

    def __init__(self, spec: ImageSpec, /, width: PositiveInt = 256, depth: NonNegativeInt = 2) -> None:
        super().__init__()
        sizes = [spec.channels * spec.height * spec.width, *[width] * depth]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.LayerNorm(after), nn.GELU())
                for before, after in pairwise(sizes)
            )
        )
        self.head = head(sizes[-1], spec)

    def forward(self, inputs: torch.Tensor) -> Output:
        output: Output = self.head(self.blocks(inputs.flatten(1)))
        return output

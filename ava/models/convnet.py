"""A small convolutional network: the default for small images such as 8x8 digits.

Three 3x3 convolutions; the second and third halve the image and double the channels. The class is read from the mean
over what is left, so any size of image from 4 pixels a side on fits.
"""

from __future__ import annotations

import torch
from torch import nn

from ava.data.source import ImageSpec
from ava.errors import InputError
from ava.models._head import Output, head
from ava.models._norm import channel_norm
from ava.registry import PositiveInt, model

SMALLEST = 4


@model(kind="images")
class ConvNet(nn.Module):
    """Three convolutions with group norm and a mean over the image; (B, C, H, W) -> (B, num_classes) logits.

    Args:
        spec: the images' channels, height and width, and the number of classes.
        width: channels after the first convolution; twice and four times as many after the others.

    Raises:
        InputError: the image is smaller than 4 pixels a side.
    """

    def __init__(self, spec: ImageSpec, /, width: PositiveInt = 32) -> None:
        super().__init__()
        if min(spec.height, spec.width) < SMALLEST:
            raise InputError(
                f"images of {spec.height}x{spec.width} pixels are too small for convnet, which needs at least "
                f"{SMALLEST} a side.",
                hint="Use `model=mlp`.",
            )
        self.blocks = nn.Sequential(
            _layer(spec.channels, width, stride=1),
            _layer(width, 2 * width, stride=2),
            _layer(2 * width, 4 * width, stride=2),
        )
        self.head = head(4 * width, spec)

    def forward(self, inputs: torch.Tensor) -> Output:
        features_BCHW = self.blocks(inputs)
        output: Output = self.head(features_BCHW.mean((-2, -1)))
        return output


def _layer(before: int, after: int, stride: int) -> nn.Sequential:
    """Convolution, normalisation, activation: (B, before, H, W) -> (B, after, H / stride, W / stride)."""
    convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, channel_norm(after), nn.GELU())

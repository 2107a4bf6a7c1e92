"""Residual networks with basic blocks, for small and for large images.

The stages are those of He et al. 2015: four of them, each half as large and twice as wide as the one before. The stem
for small images keeps their size; the one for large images divides it by four. It uses strided convolutions where
the paper has max pooling, because the gradient of max pooling is not deterministic on GPUs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from ava.data.source import ImageSpec
from ava.errors import InputError
from ava.models._head import Output, head
from ava.models._norm import channel_norm
from ava.registry import PositiveInt, model

Norm = Literal["group", "batch"]
STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Blocks per stage, by the number of layers with weights."""
SMALLEST = 4


@model(kind="images")
class ResNet(nn.Module):
    """Residual network of basic blocks, group norm by default; (B, C, H, W) -> (B, num_classes) logits.

    Args:
        spec: the images' channels, height and width, and the number of classes.
        layers: depth: 10, 18 or 34 layers with weights.
        width: channels of the first stage; the last has 8 times as many. The paper's is 64.
        norm: "group" looks at each sample alone; with "batch" the statistics depend on micro-batches and ranks.
        stem: "small" keeps the image's size, "large" divides it by 4; "auto" is large from 64 pixels a side on.

    Raises:
        InputError: the image is smaller than 4 pixels a side.

    Reference: He et al. 2015, https://arxiv.org/abs/1512.03385; Wu & He 2018, https://arxiv.org/abs/1803.08494
    """

    def __init__(
        self,
        spec: ImageSpec,
        /,
        layers: Literal[10, 18, 34] = 18,
        width: PositiveInt = 64,
        norm: Literal["group", "batch"] = "group",
        stem: Literal["auto", "small", "large"] = "auto",
    ) -> None:
        super().__init__()
        side = min(spec.height, spec.width)
        if side < SMALLEST:
            raise InputError(
                f"images of {spec.height}x{spec.width} pixels are too small for resnet, which needs at least "
                f"{SMALLEST} a side.",
                hint="Use `model=mlp`.",
            )
        large = stem == "large" or (stem == "auto" and side >= 64)
        self.stem = _large_stem(spec.channels, width, norm) if large else _small_stem(spec.channels, width, norm)
        self.blocks = nn.ModuleList()
        channels = width
        for stage, num_blocks in enumerate(STAGES[layers]):
            for i in range(num_blocks):
                after, stride = width * 2**stage, 2 if stage > 0 and i == 0 else 1
                self.blocks.append(BasicBlock(channels, after, stride, norm))
                channels = after
        self.head = head(channels, spec)

    def forward(self, inputs: torch.Tensor) -> Output:
        x_BCHW = self.stem(inputs)
        for block in self.blocks:
            x_BCHW = block(x_BCHW)
        output: Output = self.head(x_BCHW.mean((-2, -1)))
        return output


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, C, H, W) -> (B, after, H / stride, W / stride).

    The last normalisation starts at zero, so that each block is its shortcut at first.
    """

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(before, after, 3, stride, norm), nn.ReLU(), *_convolution(after, after, 3, 1, norm)
        )
        nn.init.zeros_(self.body[-1].weight)  # type: ignore[arg-type]
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_convolution(before, after, 1, stride, norm))

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.shortcut(x_BCHW) + self.body(x_BCHW))


def _convolution(before: int, after: int, size: int, stride: int, norm: Norm) -> list[nn.Module]:
    """A convolution with He initialisation, and its normalisation."""
    convolution = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, channel_norm(after, norm)]


def _small_stem(channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(*_convolution(channels, width, 3, 1, norm), nn.ReLU())


def _large_stem(channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(
        *_convolution(channels, width, 7, 2, norm), nn.ReLU(), *_convolution(width, width, 3, 2, norm), nn.ReLU()
    )

"""A vision transformer: an image is a sequence of patches.

Each patch becomes a token by one linear layer, and gets a learned embedding of its place; blocks of full attention
follow; the class is read from the mean over the tokens.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ava.data.source import ImageSpec
from ava.errors import InputError
from ava.models._head import Output, head
from ava.models._transformer import Block, BlockSpec, initialise
from ava.registry import Decay, PositiveInt, model


@model(kind="images")
class ViT(nn.Module):
    """Vision transformer over square patches; (B, C, H, W) -> (B, num_classes) logits.

    Args:
        spec: the images' channels, height and width, and the number of classes.
        patch: side of a patch in pixels; must divide the image's height and width.
        layers: number of blocks.
        heads: attention heads per block; must divide `width`.
        width: size of the residual stream.
        dropout: on attention weights and each block's output.

    Raises:
        InputError: the patches do not tile the image, or the heads do not divide the width.

    Reference: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929
    """

    def __init__(
        self,
        spec: ImageSpec,
        /,
        patch: PositiveInt = 2,
        layers: PositiveInt = 6,
        heads: PositiveInt = 4,
        width: PositiveInt = 128,
        dropout: Decay = 0.0,
    ) -> None:
        super().__init__()
        if spec.height % patch or spec.width % patch:
            raise InputError(
                f"patch {patch} does not divide the images of {spec.height}x{spec.width} pixels.",
                hint=_suggest_patch(spec, patch),
            )
        num_tokens = (spec.height // patch) * (spec.width // patch)
        self.patch = nn.Conv2d(spec.channels, width, patch, stride=patch)
        self.position = nn.Embedding(num_tokens, width)
        block = BlockSpec(width, heads, causal=False, dropout=dropout)
        self.blocks = nn.ModuleList(Block(block) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = head(width, spec)
        initialise(self, layers)

    def forward(self, inputs: torch.Tensor) -> Output:
        x_BTC = self.patch(inputs).flatten(2).transpose(1, 2) + self.position.weight
        for block in self.blocks:
            x_BTC = block(x_BTC)
        output: Output = self.head(self.norm(x_BTC).mean(1))
        return output


def _suggest_patch(spec: ImageSpec, patch: int) -> str:
    """The sentence that names the four sizes nearest to `patch` that do tile the image."""
    side = math.gcd(spec.height, spec.width)
    fits = sorted((p for p in range(1, side + 1) if side % p == 0), key=lambda p: abs(p - patch))[:4]
    return f"Patches that fit: {', '.join(map(str, sorted(fits)))}."

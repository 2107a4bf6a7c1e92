"""What optimizers are compared on: many shapes at the scale of a small GPT, and many small tensors.

A step on `gpt` is bound by memory, one on `small` by what each tensor costs before any arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class ParameterSet:
    """Shapes of a model without the model.

    Attributes:
        name: what the table calls it.
        shapes: parameter name -> shape; hidden layers' names begin with "layers.".
    """

    name: str
    shapes: dict[str, tuple[int, ...]]

    def build(self) -> list[tuple[str, nn.Parameter]]:
        """The same (name, parameter) pairs each time, with gradients that nobody changes."""
        generator = torch.Generator().manual_seed(0)
        pairs = []
        for name, shape in self.shapes.items():
            parameter = nn.Parameter(torch.randn(shape, generator=generator).mul_(0.02))
            parameter.grad = torch.randn(shape, generator=generator).mul_(1e-3)
            pairs.append((name, parameter))
        return pairs


def _gpt(layers: int, width: int, vocabulary: int, context: int) -> dict[str, tuple[int, ...]]:
    """GPT-2's tensors, with an output layer of its own."""
    block = {
        "norm_1.weight": (width,), "norm_1.bias": (width,),
        "attention.qkv.weight": (3 * width, width), "attention.qkv.bias": (3 * width,),
        "attention.output.weight": (width, width), "attention.output.bias": (width,),
        "norm_2.weight": (width,), "norm_2.bias": (width,),
        "mlp.in.weight": (4 * width, width), "mlp.in.bias": (4 * width,),
        "mlp.out.weight": (width, 4 * width), "mlp.out.bias": (width,),
    }  # fmt: skip
    return {
        "embedding.weight": (vocabulary, width),
        "position.weight": (context, width),
        **{f"layers.{layer}.{name}": shape for layer in range(layers) for name, shape in block.items()},
        "norm.weight": (width,), "norm.bias": (width,), "head.weight": (vocabulary, width),
    }  # fmt: skip


def _small(count: int) -> dict[str, tuple[int, ...]]:
    return {f"layers.{index}.weight": (64, 64) for index in range(count)}


SETS = {
    "gpt": ParameterSet("gpt", _gpt(layers=12, width=448, vocabulary=4096, context=256)),
    "small": ParameterSet("small", _small(1000)),
    "tiny": ParameterSet("tiny", _gpt(layers=1, width=16, vocabulary=32, context=8)),
}
GPT_1M = ParameterSet("gpt1m", _gpt(layers=4, width=128, vocabulary=512, context=128))
"""0.94M parameters in 53 tensors."""
"""`gpt`: 32.8M parameters in 149 tensors of 9 shapes; `small`: 1,000 of 4,096; `tiny` tells nothing of speed."""

"""What is rounded, and to what: the part of a quantization that a file has to say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.precision.quantization.arithmetic import Plain, quantize_groups, quantize_rows

Bits = Literal[8, 4, 2]
Activations = Literal["dynamic", "static", "float"]


@dataclass(frozen=True)
class Scheme:
    """A way to quantize linear layers.

    Attributes:
        bits: of each weight.
        activations: dynamic rounds the inputs of a layer to 8 bits by the range they have, static by the range that
            they had in calibration; float leaves them.
        group_size: neighbouring weights of a row that share a scale; None where a whole row does.
    """

    bits: Bits
    activations: Activations
    group_size: int | None = None

    def __str__(self) -> str:
        if self.group_size is None:
            return f"int{self.bits} {self.activations}"
        return f"int{self.bits} weights in groups of {self.group_size}"

    def quantize(self, layer: nn.Linear, input_range: Plain | None = None) -> Plain:
        """A layer's tensors as this scheme stores them, on the layer's device.

        Args:
            layer: the layer; not changed.
            input_range: `input_scale` and `input_zero`, where activations are static.

        Raises:
            InputError: a weight is not finite, which no integer can say.
        """
        if not torch.isfinite(layer.weight).all():
            problem = f"weights of a linear layer ({layer.extra_repr()}) are not finite."
            raise InputError(problem, hint="Quantize a checkpoint from before that.")
        if self.group_size is None:
            plain = quantize_rows(layer.weight)
        else:
            plain = quantize_groups(layer.weight, self.bits, self.group_size)
        if layer.bias is not None:
            plain["bias"] = layer.bias.detach().float().clone()
        return plain | (input_range or {})


def num_bytes(tensors: list[Tensor]) -> int:
    """What tensors take in a file."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

"""Linear layers with 2 bits a weight: no kernel computes with them, so each call makes floats of them first.

That saves memory and no time.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from ava.optimization.precision.quantization.arithmetic import Plain, check_floating, dequantize


class DequantizingLinear(nn.Module):
    """A linear layer that keeps its weights packed; (..., K) of any float type -> (..., N) of the same.

    Args:
        plain: of `quantize_groups`, with `bias` where there is one.
        bits: of each weight.
    """

    def __init__(self, plain: Plain, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.out_features, self.in_features = plain["weight"].shape[0], plain["weight"].shape[1] * 8 // bits
        self.names = tuple(plain)
        for name, tensor in plain.items():
            self.register_buffer(name, tensor)

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's outputs."""
        check_floating(inputs)
        plain: Plain = {name: self.get_buffer(name) for name in self.names}
        weight = dequantize(plain, self.bits).to(inputs.dtype)
        bias = plain["bias"].to(inputs.dtype) if "bias" in plain else None
        return functional.linear(inputs, weight, bias)

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        return f"in_features={self.in_features}, out_features={self.out_features}, int{self.bits} weights"

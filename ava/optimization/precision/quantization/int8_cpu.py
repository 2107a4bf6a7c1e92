"""int8 on processors: torch's own quantized kernels (fbgemm and oneDNN), the fastest there are for them.

They are those that the deprecated `torch.ao.quantization.quantize_dynamic` calls. Called directly they need none of
its Python, take a scale for each row, and on processors with VNNI all 8 bits of the inputs, where it leaves one unused.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ava.optimization.precision.quantization.arithmetic import Plain, check_floating

_ENGINES = ("x86", "fbgemm", "onednn")
_KERNELS = ("linear_prepack", "linear_unpack", "linear_dynamic", "linear_with_input_q_dq_qweight_dq_output_fp32")


def is_available(activations: str) -> bool:
    """Whether this processor and this torch have the kernels."""
    has_kernels = all(hasattr(torch.ops.quantized, name) for name in _KERNELS)
    # Without VNNI full 8-bit inputs overflow 16-bit sums; only the dynamic kernel can leave one bit unused.
    fits = activations == "dynamic" or _has_vnni()
    return has_kernels and torch.backends.quantized.engine in _ENGINES and fits


class Int8CPULinear(nn.Module):
    """A linear layer that computes in int8 on a processor; (..., K) of any float type -> (..., N) of the same.

    Args:
        plain: of `quantize_rows`, with `bias` where there is one, and with `input_scale` and `input_zero` where the
            range of the inputs is fixed; else each call takes the range that its inputs have.
    """

    packed: Any

    def __init__(self, plain: Plain) -> None:
        super().__init__()
        self._pack(plain)

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's outputs."""
        check_floating(inputs)
        rows = inputs.detach().reshape(-1, inputs.shape[-1]).float()  # the kernels have no gradients, not zero ones
        if self.input_range is None:
            outputs = torch.ops.quantized.linear_dynamic(rows, self.packed, not self.has_vnni)
        else:
            scale, zero = self.input_range
            kernel = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
            outputs = kernel(rows, scale, zero, self.packed)
        return outputs.view(*inputs.shape[:-1], self.out_features).to(inputs.dtype)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        activations = "dynamic" if self.input_range is None else "static"
        return f"in_features={self.in_features}, out_features={self.out_features}, int8 {activations}"

    def get_extra_state(self) -> Plain:
        """The plain tensors: what a state dict keeps of the layer."""
        weight, bias = torch.ops.quantized.linear_unpack(self.packed)
        plain = {"weight": weight.int_repr(), "scale": weight.q_per_channel_scales().float()}
        if bias is not None:
            plain["bias"] = bias.detach()
        if self.input_range is not None:
            plain |= {"input_scale": torch.tensor(self.input_range[0]), "input_zero": torch.tensor(self.input_range[1])}
        return plain

    def set_extra_state(self, state: Plain) -> None:
        """Take up what `get_extra_state` gave."""
        self._pack(state)

    def _pack(self, plain: Plain) -> None:
        plain = {name: tensor.cpu() for name, tensor in plain.items()}
        self.out_features, self.in_features = plain["weight"].shape
        self.has_vnni = _has_vnni()
        self.input_range: tuple[float, int] | None = None
        if "input_scale" in plain:
            self.input_range = float(plain["input_scale"]), int(plain["input_zero"])
        zeros = torch.zeros(self.out_features, dtype=torch.int64)
        with warnings.catch_warnings():
            # torch deprecates tensors with a quantized dtype; its kernels take their weights as no other.
            warnings.simplefilter("ignore")
            weight = torch._make_per_channel_quantized_tensor(plain["weight"], plain["scale"].double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(weight, plain.get("bias"))


def _has_vnni() -> bool:
    return bool(torch.cpu._is_vnni_supported())

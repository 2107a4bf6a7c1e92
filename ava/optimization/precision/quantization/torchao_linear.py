"""Linear layers whose weight is one of torchao's quantized tensors: int8 everywhere, int4 where there is a kernel.

    device   bits   tensor                    inputs
    any      8      Int8Tensor                rounded to 8 bits, with a scale for each row, or the calibrated one
    CPU      4      Int4OpaqueTensor          bfloat16
    CUDA     4      Int4TilePackedTo4dTensor  bfloat16

The tensors are built from the integers themselves, so that a file gives every machine the same weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ava.errors import InputError
from ava.optimization.precision.quantization.arithmetic import Plain, check_floating, unpack
from ava.optimization.precision.torchao import import_torchao

_INNER_TILES, _PADDED_INPUTS = 8, 1024
"""What torchao gives CUDA's int4 kernel: so many tiles at once, and inputs padded to a multiple of this."""


class TensorLinear(nn.Module):
    """A linear layer with a weight of torchao's; (..., K) of any float type -> (..., N) of the same.

    Args:
        weight: the quantized (N, K) weight.
        bias: (N,) or None.
        compute: the type of inputs that the weight's kernel is fast for.
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, compute: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.to(compute), requires_grad=False)
        self.out_features, self.in_features = weight.shape
        self.compute = compute

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's outputs."""
        check_floating(inputs)
        # A fixed scale of the inputs has the shape that rows of a matrix need.
        rows = inputs.reshape(-1, inputs.shape[-1]).to(self.compute)
        if rows.shape[0]:
            outputs = functional.linear(rows, self.weight, self.bias)
        else:  # the range of no inputs is an error to torchao
            outputs = rows.new_zeros(0, self.out_features)
        return outputs.view(*inputs.shape[:-1], self.out_features).to(inputs.dtype)

    def extra_repr(self) -> str:
        """What `print(model)` says."""
        kind = type(self.weight.data).__name__
        return f"in_features={self.in_features}, out_features={self.out_features}, weight={kind}"


def int8_linear(plain: Plain, device: torch.device) -> TensorLinear:
    """A layer from the tensors of `quantize_rows`.

    Raises:
        InputError: torchao is missing.
    """
    quantization = import_torchao("torchao.quantization", "int8 of this device and backend")
    tensors = import_torchao("torchao.quantization.quantize_.workflows", "int8 of this device and backend")
    plain = {name: tensor.to(device) for name, tensor in plain.items()}
    is_static = "input_scale" in plain
    kwargs = tensors.QuantizeTensorToInt8Kwargs(
        granularity=quantization.PerTensor() if is_static else quantization.PerRow(),
        mapping_type=quantization.MappingType.SYMMETRIC,
    )
    fixed = {}
    if is_static:
        # The same range, made symmetric: with a zero of the inputs torchao adds up all weights in every call.
        zero, largest = plain["input_zero"], 255 - plain["input_zero"]
        scale = plain["input_scale"] * zero.maximum(largest) / 127.5
        fixed = {"act_quant_scale": scale.float().reshape(1, 1)}
    weight = quantization.Int8Tensor(
        plain["weight"], plain["scale"][:, None], [1, plain["weight"].shape[1]], torch.float32,
        zero_point=torch.zeros_like(plain["scale"][:, None], dtype=torch.int8), act_quant_kwargs=kwargs, **fixed,
    )  # fmt: skip
    return TensorLinear(weight, plain.get("bias"), torch.float32)


def int4_linear(plain: Plain, device: torch.device) -> TensorLinear:
    """A layer from the tensors of `quantize_groups` with 4 bits, in the packing of this machine's kernel.

    Raises:
        InputError: torchao is missing, or nothing here runs 4 bits.
    """
    plain = {name: tensor.to(device) for name, tensor in plain.items()}
    # The kernels take scales and zeros as pairs, group by group: (G, N, 2).
    pairs = torch.stack([plain["scale"], plain["zero"]], dim=-1).transpose(0, 1).contiguous()
    codes_NK = unpack(plain["weight"], 4)
    group_size = codes_NK.shape[1] // pairs.shape[0]
    make = {"cpu": _on_cpu, "cuda": _on_cuda}.get(device.type)
    if make is None:
        problem = f"no kernel for 4 bits runs on {device.type}; there are some for cpu and cuda."
        raise InputError(problem, key="bits", value=4, hint="Use 8 bits.")
    return TensorLinear(make(codes_NK, pairs, group_size), plain.get("bias"), torch.bfloat16)


def _on_cpu(codes_NK: Tensor, pairs: Tensor, group_size: int) -> Any:
    module = import_torchao("torchao.prototype.quantization.int4.int4_opaque_tensor", "4 bits on a CPU")
    try:
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes_NK.int(), 1)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        problem = f"this processor or torch has no kernel for 4 bits ({' '.join(str(error).split())[:200]})."
        raise InputError(problem, key="bits", value=4, hint="Use 8 bits.") from error
    return module.Int4OpaqueTensor(packed, pairs, [1, group_size], codes_NK.shape)


def _on_cuda(codes_NK: Tensor, pairs: Tensor, group_size: int) -> Any:
    if torch.cuda.get_device_capability(codes_NK.device) < (8, 0):
        problem = "kernels for 4 bits need a GPU of compute capability 8.0 or newer."
        raise InputError(problem, key="bits", value=4, hint="Use 8 bits.")
    module = import_torchao("torchao.quantization", "4 bits on a GPU")
    missing = -codes_NK.shape[1] % _PADDED_INPUTS
    padded = functional.pad(codes_NK, (0, missing))
    pairs = functional.pad(pairs, (0, 0, 0, 0, 0, missing // group_size))
    bytes_NK = padded[:, ::2] << 4 | padded[:, 1::2]
    packed = torch.ops.aten._convert_weight_to_int4pack(bytes_NK.contiguous(), _INNER_TILES)
    return module.Int4TilePackedTo4dTensor(packed, pairs, [1, group_size], codes_NK.shape)

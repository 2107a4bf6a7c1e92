"""How weights become integers, and back: two formulas, in plain tensors that any machine and any kernel can take.

Rows, for 8 bits: one scale for each output, and 0 stays 0.

    q = round(w / scale),  scale = max |w| / 127.5

Groups, for 4 and 2 bits: each run of `group_size` weights of a row spans its own smallest to largest value, in the
form that torch's int4 kernels compute with.

    q = round((w - zero) / scale) + 2^(bits - 1),  scale = (max - min) / (2^bits - 1),  zero = min + 2^(bits - 1) scale

Shape suffixes: N outputs, K inputs, G groups of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

Plain = dict[str, Tensor]
"""A quantized layer as plain tensors: `weight`, `scale`, and where there are any `zero`, `bias`, `input_scale`,
`input_zero`. It is what a file holds."""
_SMALLEST = 1e-6
"""The scale of a group whose weights are all the same."""


def quantize_rows(weight_NK: Tensor) -> Plain:
    """Quantize to 8 bits by row.

    Args:
        weight_NK: (N, K), floating point and finite.

    Returns:
        `weight`: (N, K) int8; `scale`: (N,) float32.
    """
    weight_NK = weight_NK.detach().float()
    scale_N = (weight_NK.abs().amax(dim=1) / 127.5).clamp(min=torch.finfo(torch.float32).eps)
    codes_NK = (weight_NK * scale_N[:, None].reciprocal()).round().clamp(-128, 127)
    return {"weight": codes_NK.to(torch.int8), "scale": scale_N}


def quantize_groups(weight_NK: Tensor, bits: int, group_size: int) -> Plain:
    """Quantize to 4 or 2 bits by group. Scales are rounded to bfloat16 first, so that the codes fit what is stored.

    Args:
        weight_NK: (N, K), floating point and finite; K is a multiple of `group_size`.
        bits: 4 or 2.
        group_size: neighbouring weights of a row that share a scale; a multiple of 8 / bits.

    Returns:
        `weight`: (N, K bits / 8) uint8, the first of its codes in the lowest bits; `scale`, `zero`: (N, G) bfloat16.
    """
    groups_NGg = _in_groups(weight_NK.detach().float(), group_size)
    low, high, middle = groups_NGg.amin(dim=2), groups_NGg.amax(dim=2), 2 ** (bits - 1)
    exact_NG = ((high - low) / (2**bits - 1)).clamp(min=_SMALLEST)
    scale_NG, zero_NG = exact_NG.bfloat16(), (low + exact_NG * middle).bfloat16()
    offset = zero_NG.float() - scale_NG.float() * middle
    codes = ((groups_NGg - offset[..., None]) / scale_NG.float()[..., None]).round().clamp(0, 2**bits - 1)
    return {"weight": pack(codes.flatten(1).to(torch.uint8), bits), "scale": scale_NG, "zero": zero_NG}


def dequantize(plain: Plain, bits: int) -> Tensor:
    """The (N, K) float32 weights that the integers stand for."""
    if bits == 8:
        return plain["weight"].float() * plain["scale"][:, None].float()
    scale_NG, zero_NG = plain["scale"].float(), plain["zero"].float()
    codes_NK = unpack(plain["weight"], bits)
    codes_NGg = _in_groups(codes_NK.float(), codes_NK.shape[1] // scale_NG.shape[1])
    weight_NGg: Tensor = (codes_NGg - 2 ** (bits - 1)) * scale_NG[..., None] + zero_NG[..., None]
    return weight_NGg.flatten(1)


def check_floating(inputs: Tensor) -> None:
    """Refuse inputs that `nn.Linear` refuses: in integers the outputs would be cut off.

    Raises:
        RuntimeError: the inputs are no floats.
    """
    if not inputs.is_floating_point():
        raise RuntimeError(f"a quantized linear layer takes floating-point inputs, not {inputs.dtype}.")


def pack(codes_NK: Tensor, bits: int) -> Tensor:
    """Codes of a few bits, several to a byte.

    Args:
        codes_NK: (N, K) uint8, each < 2^bits; K is a multiple of 8 / bits.
        bits: 4 or 2.

    Returns:
        (N, K bits / 8) uint8; the first code of each byte in its lowest bits.
    """
    per_byte = 8 // bits
    parts = _in_groups(codes_NK, per_byte)
    packed = torch.zeros_like(parts[..., 0])
    for place in range(per_byte):
        packed |= parts[..., place] << (bits * place)
    return packed


def unpack(packed: Tensor, bits: int) -> Tensor:
    """The (N, K) uint8 codes that `pack` was given."""
    mask = 2**bits - 1
    places = [(packed >> (bits * place)) & mask for place in range(8 // bits)]
    codes_NK: Tensor = torch.stack(places, dim=-1).flatten(1)
    return codes_NK


def _in_groups(rows: Tensor, size: int) -> Tensor:
    """(N, K) -> (N, K / size, size)."""
    return rows.reshape(len(rows), -1, size)

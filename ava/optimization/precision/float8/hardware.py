"""What a GPU demands of 8-bit floats, checked on every device: a CPU multiplies what a GPU refuses.

Two e5m2 operands cannot be multiplied, the second operand of a product with a scale for each row has to be e4m3, and
sizes have to be multiples of 16. A training that is tried out on a CPU would otherwise fail on its first GPU.

Reference: ATen's checks, https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cuda/ScaledBlas.cpp
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ava.errors import InputError

MULTIPLE = 16
"""What both sizes of a weight have to be divisible by."""
_E5M2 = (torch.float8_e5m2, torch.float8_e5m2fnuz)
_AMD = ("gfx942", "gfx950", "gfx1200", "gfx1201")
"""MI300, MI350 and RDNA4."""


def has_float8(device: torch.device) -> bool:
    """Whether the device multiplies 8-bit floats in hardware."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    if torch.version.hip is not None:
        return torch.cuda.get_device_properties(device).gcnArchName.startswith(_AMD)
    return torch.cuda.get_device_capability(device) >= (8, 9)


def obstacle(device: torch.device) -> str | None:
    """Why a device cannot multiply 8-bit floats in hardware; None where it can."""
    if has_float8(device):
        return None
    return (
        "FP8 needs an NVIDIA GPU of compute capability 8.9 or newer (Hopper: H100, H200; also Ada and Blackwell) "
        f"or an AMD MI300 or newer; this device is {named(device)}"
    )


def check_hardware(device: torch.device) -> None:
    """Refuse a device without hardware for 8-bit floats.

    Raises:
        InputError: it has none.
    """
    if (why := obstacle(device)) is not None:
        hint = "Set precision=bf16, or precision.emulate=true for the same numerics, slowly."
        raise InputError(f"{why}.", key="precision.name", value="fp8", hint=hint)


def check_product(a: Tensor, b: Tensor) -> None:
    """Refuse a product of (M, K) and (K, N) with one scale each that a GPU would refuse.

    Raises:
        ValueError: both are e5m2, or K or N is not a multiple of 16.
    """
    if a.dtype in _E5M2 and b.dtype in _E5M2:
        raise ValueError("two e5m2 matrices cannot be multiplied: one of them has to be e4m3.")
    if a.shape[1] % MULTIPLE or b.shape[1] % MULTIPLE:
        raise ValueError(
            f"{tuple(a.shape)} times {tuple(b.shape)}: the columns of both have to be multiples of {MULTIPLE}."
        )


def on_aligned_rows(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(..., K) -> (..., N) by a layer that wants (M, K) with M a multiple of 16, over which a weight's gradient sums.

    Rows of zeros are added where they are needed, and their outputs left out: no product changes.
    """
    rows = x.numel() // x.shape[-1]
    flat = x.reshape(rows, x.shape[-1])
    missing = -rows % MULTIPLE if rows > 0 else MULTIPLE
    # Padding copies, even by nothing.
    out = layer(functional.pad(flat, (0, 0, 0, missing)))[:rows] if missing else layer(flat)
    return out.reshape(*x.shape[:-1], out.shape[-1])


def as_autocast(x: Tensor) -> Tensor:
    """`x` in the type that autocast computes in on its device, if autocast is on."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def multiplies(device: torch.device) -> bool:
    """Whether `torch._scaled_mm` runs there: a CPU has it too, in software."""
    return device.type == "cpu" or has_float8(device)


def is_fnuz(device: torch.device) -> bool:
    """Whether its 8-bit floats are those of the MI300, which have no negative zero and reach 240 in e4m3."""
    if device.type != "cuda" or torch.version.hip is None:
        return False
    return torch.cuda.get_device_properties(device).gcnArchName.startswith("gfx942")


def named(device: torch.device) -> str:
    """What a sentence calls a device."""
    if device.type != "cuda":
        return f"a {device.type.upper()}"
    if not torch.cuda.is_available():
        return "a GPU that torch does not see"
    major, minor = torch.cuda.get_device_capability(device)
    return f"{torch.cuda.get_device_name(device)} (compute capability {major}.{minor})"

"""What arithmetic a device does, what it does well, and why not the rest.

torch's autocast only warns where a device cannot do what is asked, and then computes in float32: so it is asked here
first.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch

from ava.errors import InputError
from ava.optimization.precision.float8 import hardware
from ava.optimization.precision.float8.hardware import named

NAMES = ("fp32", "tf32", "bf16", "fp16", "fp8")
"""The policies, "auto" aside."""


def obstacle(name: str, device: torch.device, *, emulate: bool = False) -> str | None:
    """Why a device cannot train under a policy; None where it can.

    Args:
        name: one of `NAMES`.
        device: where training is to run.
        emulate: whether fp8 may be computed without hardware for it.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        return "torch sees no GPU here"
    if name == "fp32":
        return None
    if name == "tf32":
        return None if _has_tf32(device) else f"TF32 is a format of NVIDIA GPUs since Ampere, not of {named(device)}"
    if not torch.amp.is_autocast_available(device.type):
        return f"torch has no autocast for {named(device)}"
    if name == "bf16":
        return None if _has_bf16(device) else f"{named(device)} does not compute in bfloat16"
    if name == "fp16":
        return None if device.type in ("cuda", "cpu", "xpu") else f"{named(device)} has no float16 autocast"
    return None if emulate else hardware.obstacle(device)


def supported(device: torch.device) -> list[str]:
    """The policies under which a device can train without emulation."""
    return [name for name in NAMES if obstacle(name, device) is None]


def refuse_unsupported(name: str, device: torch.device, *, emulate: bool = False) -> None:
    """Refuse what a device cannot do.

    Args:
        name: one of `NAMES`.
        device: where training is to run.
        emulate: whether fp8 may be computed without hardware for it.

    Raises:
        InputError: says why, and what it can do.
    """
    if name not in NAMES:
        raise InputError(f"must be one of {', '.join(NAMES)}.", key="precision.name", value=name)
    why = obstacle(name, device, emulate=emulate)
    if why is None:
        return
    emulation = "Set precision.emulate=true to train with its numerics, slowly; or " if name == "fp8" else ""
    hint = f"{emulation}set precision=auto." if emulation else "Set precision=auto."
    can = ", ".join(supported(device)) or "nothing"
    raise InputError(f"{why}; it supports: {can}.", key="precision.name", value=name, hint=hint)


def choose(device: torch.device) -> tuple[str, str]:
    """The best that a device does well, and why.

    Returns:
        One of `NAMES`, and the reason as a clause.
    """
    if device.type == "cpu":
        if _multiplies_bf16():
            return "bf16", "this processor multiplies in bfloat16, which needs no loss scale"
        return "fp32", "this processor has no instructions that multiply in bfloat16, which would only be slower"
    if obstacle("bf16", device) is None:
        return "bf16", f"{named(device)} computes in bfloat16, which needs no loss scale (fp8 pays in wide layers)"
    if obstacle("fp16", device) is None:
        return "fp16", f"{named(device)} has no bfloat16, so float16 with a loss scale"
    return "fp32", f"{named(device)} has no autocast to 16 bits"


def is_emulated(name: str, device: torch.device) -> bool:
    """Whether a processor has no instructions for a 16-bit type, so that it is much slower than float32."""
    if device.type != "cpu" or name not in ("bf16", "fp16"):
        return False
    return not (_multiplies_bf16() if name == "bf16" else _knows("avx512_fp16", "amx_fp16", "fphp", "asimdhp"))


def _has_tf32(device: torch.device) -> bool:
    if device.type != "cuda" or torch.version.hip:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _has_bf16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _multiplies_bf16() -> bool:
    """Whether this processor has AVX-512 BF16, AMX or Arm's BF16 instructions."""
    return _knows("avx512_bf16", "amx_bf16", "bf16")


@functools.cache
def _knows(*flags: str) -> bool:
    """Whether the processor names one of these instruction sets; unknown counts as no."""
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not set(flags).isdisjoint(words)

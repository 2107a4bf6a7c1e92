"""The precision policy: the type that a forward pass computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ava.errors import InputError

DTYPES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}
"""Policy -> what autocast computes in; None is no autocast."""


class Policy:
    """Parameters, gradients and optimizer state stay in float32; matrix products run in the policy's type.

    Args:
        name: "fp32", or "bf16" for autocast to bfloat16, whose range needs no loss scale.
        device_type: the device's type, such as "cpu" or "cuda".

    Raises:
        InputError: there is no such policy, or the device cannot run it.
    """

    def __init__(self, name: str, device_type: str) -> None:
        if name not in DTYPES:
            raise InputError(f"must be one of {', '.join(DTYPES)}.", key="precision.name", value=name)
        self.name, self.device_type, self.dtype = name, device_type, DTYPES[name]
        if self.dtype is not None and not _has_bf16(device_type):
            raise InputError(
                f"the device {device_type!r} cannot compute in it; it supports: fp32.",
                key="precision.name", value=name, hint="Set precision=fp32.",
            )  # fmt: skip

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass and its loss."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)


def _has_bf16(device_type: str) -> bool:
    if not torch.amp.is_autocast_available(device_type):
        return False
    return device_type != "cuda" or (torch.cuda.is_available() and torch.cuda.is_bf16_supported())

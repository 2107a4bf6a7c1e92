"""Multiply measured gradients by a factor that the host has not read."""

from __future__ import annotations

import torch
from torch import Tensor

from ava.optimization.gradients.health import native
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.optimizers.engines.batch import local


@torch.no_grad()
def scale_(measured: Measurement, factor: Tensor) -> None:
    """Multiply all gradients in place where the factor is below 1 and every element is finite; else change nothing.

        g <- g * factor

    On a processor no memory is touched where nothing is to change. Accelerators multiply by 1 there.

    Args:
        measured: the gradients, and whether anything in them is not finite.
        factor: 0-dim, of any floating-point type.
    """
    has_kernel = (
        factor.device.type == "cpu" and measured.found_inf.device.type == "cpu" and native.library() is not None
    )
    if has_kernel:
        factor = factor.to(torch.float64)
        if not native.is_due(factor, measured.found_inf):
            return
    parts = [local(gradient) for gradient in measured.gradients]
    table = native.tabulate(parts) if has_kernel else None
    if table is not None:
        native.scale(table, factor)
    else:
        _scale(parts, torch.where((factor < 1) & (measured.found_inf.to(factor.device) == 0), factor, 1.0))


def _scale(parts: list[Tensor], factor: Tensor) -> None:
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for part in parts:
        groups.setdefault((part.device, part.dtype), []).append(part)
    for (device, dtype), group in groups.items():
        # In the type that 16-bit numbers are computed in: the factor itself is not rounded to 8 bits.
        wide = torch.float64 if dtype is torch.float64 else torch.float32
        torch._foreach_mul_(group, factor.to(device, wide))

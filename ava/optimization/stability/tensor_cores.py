"""AGMOHD's `use_rtx_optimizations`: faster, less exact kernels of NVIDIA's libraries, for the whole process."""

from __future__ import annotations

import warnings

import torch


def use_tensor_cores(device: torch.device) -> None:
    """Turn on TensorFloat-32 and cuDNN's choice of convolutions by trial; elsewhere warn that there is nothing to do.

    Both stay on after training. Products of float32 matrices then have a mantissa of 10 bits, and the last bits of a
    training may differ from run to run.

    Args:
        device: where the parameters are.

    Reference: https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    if device.type != "cuda":
        warnings.warn(
            f"use_rtx_optimizations does nothing on {device.type}: TF32 and cuDNN are NVIDIA's.", stacklevel=2
        )
        return
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

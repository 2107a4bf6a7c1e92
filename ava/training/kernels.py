"""Which kernels the libraries below torch choose: switches of the whole process, put back after the run.

    cudnn_benchmark   cuDNN tries its convolutions on the first batch of each shape and keeps the fastest
    tf32              float32 matrix products and convolutions with the 10-bit mantissa of TensorFloat-32

What autocast leaves in float32, and the optimizer's own matrix products, follow the TF32 switch too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda, cudnn, mkldnn


@contextmanager
def kernel_settings(cudnn_benchmark: bool = False, tf32: bool = False) -> Iterator[None]:
    """Within it these switches hold; after it, those from before.

    torch has an older and a newer name for each switch of TF32, and raises an error where somebody asks the one after
    the other was set to something else. Only `set_float32_matmul_precision` and `cudnn.allow_tf32` set both.

    Args:
        cudnn_benchmark: choose convolutions by trial; the choice, and with it the last bits, may differ between runs.
        tf32: False also takes TF32 from cuDNN, where torch has it on by default.

    Reference: https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    benchmark = cudnn.benchmark
    switches = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul]  # type: ignore[attr-defined]
    newer = [switch.fp32_precision for switch in switches]
    older = _older()
    cudnn.benchmark = cudnn_benchmark
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        cudnn.benchmark = benchmark
        if older is not None:
            cudnn.allow_tf32 = older[1]
            torch.set_float32_matmul_precision(older[0])
        for switch, value in zip(switches, newer, strict=True):
            switch.fp32_precision = value


def _older() -> tuple[str, bool] | None:
    """What the older names say; None where somebody has used the newer ones, and torch refuses to answer."""
    try:
        return torch.get_float32_matmul_precision(), cudnn.allow_tf32
    except RuntimeError:
        return None

"""Gradients beyond float16."""

import torch

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection


@kind(duration=8, size=2.0**24)
def fp16_overflow(injection: Injection) -> None:
    """Gradients pass through float16 with `size` on them, beyond which is infinity: a loss scale that is too high."""
    size = injection.fault.size
    injection.on_gradients(
        injection.placed(), lambda gradient: (gradient.double() * size).to(torch.float16).to(gradient.dtype) / size
    )

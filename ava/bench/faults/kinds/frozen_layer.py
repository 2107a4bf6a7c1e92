"""A layer that gets no gradient."""

import torch

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection


@kind(duration=30, place=None)
def frozen_layer(injection: Injection) -> None:
    """The gradients of one layer, or of `place`, are zero."""
    injection.on_gradients(injection.placed(), torch.zeros_like)

"""Now and then a batch that is not a number."""

import torch

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._nan import poison_inputs


@kind(at=50, duration=100, size=0.05)
def nan_batches(injection: Injection) -> None:
    """NaN as `nan_batch` has it, in a share `size` of the batches of `duration` steps, drawn by the seed."""
    injection.condition = lambda: float(torch.rand((), generator=injection.random())) < injection.fault.size
    poison_inputs(injection)

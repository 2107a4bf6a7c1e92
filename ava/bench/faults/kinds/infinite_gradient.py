"""One infinite number in a gradient."""

import torch
from torch import Tensor

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection


@kind(duration=1)
def infinite_gradient(injection: Injection) -> None:
    """One element of one gradient is infinite."""
    parameter, index = injection.one_element()

    def spoiled(gradient: Tensor) -> Tensor:
        changed = gradient.clone(memory_format=torch.contiguous_format)
        changed.view(-1)[index] = torch.inf
        return changed

    injection.on_gradients({"": parameter}, spoiled)

"""One weight that is no number."""

import torch

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection


@kind(duration=1)
def nan_weight(injection: Injection) -> None:
    """One element of one parameter becomes NaN between two steps."""
    parameter, index = injection.one_element()

    def spoil() -> None:
        parameter.view(-1)[index] = torch.nan

    injection.before_forward(spoil)

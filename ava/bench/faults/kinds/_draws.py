"""Classes and tokens at random."""

from __future__ import annotations

import torch
from torch import Tensor

from ava.bench.faults.injection import Injection
from ava.errors import InputError


def classes(injection: Injection) -> int:
    """How many classes or tokens there are.

    Raises:
        InputError: nobody said.
    """
    if injection.parts.num_classes is None:
        problem = f"{injection.fault.kind} draws labels or tokens, and nobody said how many there are."
        raise InputError(problem, hint="Give Parts(num_classes=...).")
    return injection.parts.num_classes


def drawn(like: Tensor, count: int, random: torch.Generator) -> Tensor:
    """As many as `like` has, each of 0 to count - 1 as likely, of its type and on its device."""
    return torch.randint(count, like.shape, generator=random).to(like)

"""Samples that are garbage."""

import torch
from torch import Tensor

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.kinds._draws import classes, drawn
from ava.data.source import IGNORED

LOUD = 1e3
"""Garbage where there should be numbers around 1."""


@kind(duration=10, size=0.25)
def corrupt_samples(injection: Injection) -> None:
    """A share `size` of each batch's samples is garbage: noise of deviation 1000, or random tokens, targets too."""

    def corrupted(inputs: Tensor, targets: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(inputs), generator=random)
        bad = torch.zeros(len(inputs), dtype=torch.bool)
        bad[order[: max(1, round(injection.fault.size * len(inputs)))]] = True
        rows = bad.view(-1, *[1] * (inputs.ndim - 1)).to(inputs.device)
        if inputs.is_floating_point():
            return (torch.randn(inputs.shape, generator=random) * LOUD).to(inputs).where(rows, inputs), targets
        garbage = drawn(inputs, classes(injection), random).where(rows, inputs)
        if targets.shape != inputs.shape:
            return garbage, targets
        following = garbage.roll(-1, dims=-1).where(rows & (targets != IGNORED), targets)
        return garbage, following

    injection.on_batch(corrupted)

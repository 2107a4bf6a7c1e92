"""What the tests of this folder share: small optimizers, and the curves that schedulers draw on them."""

from __future__ import annotations

import torch

from ava import registry

PURE = [entry.name for entry in registry.scheduler if "metric" not in entry.tags]
"""The schedules that are functions of the step alone."""


def sgd(lr=0.1, second=0.01, **options):
    """SGD of two groups of one parameter each."""
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    return torch.optim.SGD([{"params": params[:1]}, {"params": params[1:], "lr": second}], lr=lr, **options)


def curve(optimizer, scheduler, steps, key="lr"):
    """(steps, groups) float64: the values that each optimizer step uses."""
    rows = []
    for _ in range(steps):
        rows.append([float(group[key]) for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return torch.tensor(rows, dtype=torch.float64)

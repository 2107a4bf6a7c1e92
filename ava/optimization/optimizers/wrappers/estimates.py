"""What an optimizer learns beside the gradients: estimates of the loss's curvature, handed in every few steps.

What becomes of one says the sentence itself: a stage's variant "estimate" averages it into the state. Who trains
makes the estimates (`ava.training.curvature` does in Ava's own training).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ava.errors import InputError

if TYPE_CHECKING:
    from ava.optimization.optimizers.composed import ComposedOptimizer

VARIANT = "estimate"


@torch.no_grad()
def take(optimizer: ComposedOptimizer, estimates: Mapping[Tensor, Tensor]) -> None:
    """Average estimates into the state; where `found_inf` says so, or one is not finite, nothing changes.

    Args:
        optimizer: has a stage with the variant "estimate".
        estimates: parameter -> an estimate of the diagonal of the mean loss's Hessian there, of its shape.

    Raises:
        InputError: the optimizer uses no estimates, or the shapes are others.
    """
    if not optimizer.speaks_of(VARIANT):
        raise InputError(f"{optimizer.name} uses no estimates of the curvature.")
    for parameter, estimate in estimates.items():
        if estimate.shape != parameter.shape:
            raise InputError(
                f"an estimate has the shape {tuple(estimate.shape)}, its parameter {tuple(parameter.shape)}."
            )
    work = [[(p, estimates[p]) for p in group["params"] if p in estimates] for group in optimizer.param_groups]
    sums = [estimate.sum(dtype=torch.float32) for pairs in work for _, estimate in pairs]
    if not sums:
        return
    with optimizer.judging(torch.stack([total.to(sums[0].device) for total in sums]).sum()):
        optimizer.update(list(zip(optimizer.param_groups, work, strict=True)), VARIANT)
    optimizer.unguided = None


def remind(optimizer: ComposedOptimizer) -> None:
    """Count steps without an estimate, and warn once when one is overdue."""
    assert optimizer.unguided is not None
    optimizer.unguided += 1
    period = optimizer.param_groups[0].get("update_period", 10)
    if optimizer.unguided == period:
        optimizer.unguided = None
        warnings.warn(
            f"{optimizer.name} has taken {period} steps and was never given an estimate of the curvature: each "
            "coordinate went by its sign, as Lion does. Call take_estimate({parameter: estimate}) every "
            "update_period steps, or train with ava-train, which does.",
            stacklevel=4,
        )  # fmt: skip

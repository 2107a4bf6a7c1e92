"""Which layers tell whether objectives conflict: those whose parameters they reach together, element by element.

A layer next to the heads may be shared and yet say nothing: where one layer gives all outputs and each objective reads
its own of them, no two gradients meet in any element, and all cosines are zero. And where some objectives share a
branch of their own, its layers say nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.gram import gram_matrix

Rows = list[list[Tensor | None]]


def telling(layers: Sequence[Tensor], num_layers: int, rows_of: Callable[[Sequence[Tensor]], Rows]) -> list[int] | None:
    """The places of the layers to look at.

    Args:
        layers: shared parameters, nearest to the heads first; at least one.
        num_layers: how many to find, among them the first in which objectives meet; more where those leave out a pair
            that meets further below.
        rows_of: parameters -> each objective's gradients of them, the same on all ranks.

    Returns:
        In falling order of nearness; the first `num_layers` where objectives meet nowhere. None where a gradient is not
        finite, which says nothing.
    """
    first = min(num_layers, len(layers))
    near = [_meeting([[gradient] for gradient in column]) for column in zip(*rows_of(layers[:first]), strict=True)]
    if any(meets is None for meets in near):
        return None
    if all(bool(meets.all()) for meets in near if meets is not None):
        return list(range(first))
    found: list[int] = []
    seen: Tensor | None = None
    for place, column in enumerate(zip(*rows_of(layers), strict=True)):
        meets = _meeting([[gradient] for gradient in column])
        if meets is None:
            return None
        seen = torch.zeros_like(meets) if seen is None else seen
        others = meets & ~torch.eye(len(meets), dtype=torch.bool)
        if bool(others.any()) and (len(found) < num_layers or bool((others & ~seen).any())):
            found.append(place)
            seen |= others
    return found or list(range(first))


@torch.no_grad()
def _meeting(rows: Rows) -> Tensor | None:
    """(T, T) bool, which gradients have an element in common that is not zero; None where one is not finite."""
    sizes = gram_matrix([[None if gradient is None else gradient.abs() for gradient in row] for row in rows])
    return sizes > 0 if bool(sizes.isfinite().all()) else None

"""A sum of losses whose backward pass takes every objective's whole gradient, and gives what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.deferred import deferred
from ava.optimization.gradients.surgery.graph import SharedGraph, is_leaf, variable
from ava.optimization.gradients.surgery.interception import edge, plain_sum

Rows = list[list[Tensor | None]]

Reconcile = Callable[[Rows, Sequence[Tensor], Tensor], Sequence[Tensor | None]]
"""(T lists of N gradients, their N leaves, 0-dim seed) -> N gradients."""


def each_apart(
    losses: Mapping[str, Tensor], graph: SharedGraph, parameters: Sequence[Tensor], reconcile: Reconcile
) -> Tensor:
    """The sum of the losses; its backward pass runs once, and asks `reconcile`.

    Args:
        losses: objective -> its loss, 0-dim.
        graph: theirs.
        parameters: those of them that the graph has come first, in this order, which random numbers depend on.
        reconcile: what becomes of the gradients of all leaves that any objective reaches.
    """
    starts = [edge(loss) for loss in losses.values()]
    reached = {id(leaf): leaf for leaf in map(variable, filter(is_leaf, graph.owners))}
    first = [reached.pop(id(parameter)) for parameter in parameters if id(parameter) in reached]
    leaves = [*first, *reached.values()]

    def compute(seed: Tensor) -> Sequence[Tensor | None]:
        rows: Rows = []
        for index, start in enumerate(starts):
            is_last = index == len(starts) - 1
            found = torch.autograd.grad([start], leaves, [seed], retain_graph=not is_last, allow_unused=True)
            rows.append(list(found))
        return reconcile(rows, leaves, seed)

    return deferred(plain_sum([loss.detach() for loss in losses.values()]), leaves, compute)

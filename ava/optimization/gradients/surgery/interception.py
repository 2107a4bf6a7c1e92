"""One ordinary backward pass of a sum of losses that is looked at, and weighed, where it enters the shared part.

The loss that `intercept` returns is the sum. When its backward pass begins, or as soon as all heads are done with
theirs, `decide` is called: it may ask for each objective's gradient of a few parameters, and answers with one weight an
objective, which multiply what flows on into the shared part. Heads get their own gradients. Everything else is
autograd's: accumulation, hooks, reducers, loss scales, terms that are added to the loss.

Where all objectives leave the shared part by one feature, what they send to it is caught there, and nothing is computed
twice. Where there are more ways (several features, tied weights), `decide` is called at the beginning, and the heads
are gone through once more for what it asks.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge

from ava.optimization.gradients.surgery.entrance import entrance
from ava.optimization.gradients.surgery.graph import Gradients, SharedGraph, by_consumer

Rows = list[list[Tensor | None]]

RowsOf = Callable[[Sequence[Tensor]], Rows]
"""Parameters -> each objective's gradients of them, multiplied by the seed; None where it does not reach one."""

Decide = Callable[[RowsOf, Tensor], Sequence[float] | None]
"""(rows of, 0-dim seed of the backward pass) -> (T,) weights, or None to leave all as it is."""


def intercept(losses: Mapping[str, Tensor], graph: SharedGraph, decide: Decide) -> Tensor:
    """The sum of the losses, whose backward pass asks `decide`.

    Args:
        losses: objective -> its loss, 0-dim.
        graph: theirs.
        decide: is told every time that the pass is run.
    """
    interception = _Interception(list(losses.values()), graph, decide)
    interception.install()
    total: Tensor = _Sum.apply(interception, *losses.values())  # type: ignore[no-untyped-call]
    return total


def edge(loss: Tensor) -> GradientEdge:
    """Where a loss's backward pass begins, without its value."""
    assert loss.grad_fn is not None
    return GradientEdge(loss.grad_fn, loss.output_nr)


def plain_sum(losses: Sequence[Tensor]) -> Tensor:
    """Their sum, in order."""
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    return total


class _Sum(torch.autograd.Function):
    """The sum. It alone holds the interception: hooks below know it weakly, so that the graph is in no cycle."""

    @staticmethod
    def forward(ctx: Any, interception: _Interception, *losses: Tensor) -> Tensor:
        ctx.interception = interception
        return plain_sum([loss.detach() for loss in losses]).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.interception.begin(seed))


class _Interception:
    """The hooks of one graph, and what they caught."""

    def __init__(self, losses: Sequence[Tensor], graph: SharedGraph, decide: Decide) -> None:
        self._roots = [edge(loss) for loss in losses]
        self._graph, self._decide = graph, decide
        self._entrance = entrance(graph)
        self._caught: list[Tensor | None] = []
        self._seed: Tensor | None = None
        self._weights: Sequence[float] | None = None

    def install(self) -> None:
        """Put the hooks onto the graph, where they stay as long as it lives."""
        known = weakref.ref(self)
        for consumer, entries in by_consumer(self._graph.entries, parameters=True).items():
            consumer.register_hook(_Leaving(known, {entry.slot: entry.objective for entry in entries}))
        if self._entrance is not None:
            self._entrance[0].register_prehook(_Arriving(known))

    def begin(self, seed: Tensor) -> list[Tensor]:
        """Each loss's part of the seed."""
        self._weights = None
        if self._entrance is not None:
            self._seed, self._caught = seed, [None] * len(self._roots)
        else:
            self._weights = self._decide(self._rows_from(self._roots, [seed] * len(self._roots)), seed)
        if self._weights is None:
            return [seed] * len(self._roots)
        return [seed * factor for factor in self._graph.seeds(self._weights)]

    def leave(self, gradients: Gradients, objectives: dict[int, int]) -> Gradients | None:
        """A head is done: catch what it sends to the one entrance, or weigh it."""
        if self._seed is not None:
            for slot, objective in objectives.items():
                gradient, known = gradients[slot], self._caught[objective]
                if gradient is not None:
                    self._caught[objective] = gradient if known is None else known + gradient
        if self._weights is None:
            return None
        passed = list(gradients)
        for slot, objective in objectives.items():
            gradient = passed[slot]
            if gradient is not None and self._weights[objective] != 1.0:
                passed[slot] = gradient * self._weights[objective]
        return tuple(passed)

    def arrive(self, gradients: Gradients) -> Gradients | None:
        """All heads are done: weigh what they sent."""
        if self._seed is None or self._entrance is None:
            return None
        seed, caught, (node, output) = self._seed, self._caught, self._entrance
        # Taken away first: asking for rows goes through this node, and its hooks, again.
        self._seed, self._caught = None, []
        weights = self._decide(self._rows_from([GradientEdge(node, output)] * len(caught), caught), seed)
        total = gradients[output]
        if weights is None or total is None:
            return None
        for weight, gradient in zip(weights, caught, strict=True):
            if gradient is not None and weight != 1.0:
                total = torch.add(total, gradient, alpha=weight - 1.0)
        return (*gradients[:output], total, *gradients[output + 1 :])

    def _rows_from(self, edges: Sequence[GradientEdge], seeds: Sequence[Tensor | None]) -> RowsOf:
        def rows_of(parameters: Sequence[Tensor]) -> Rows:
            rows: Rows = []
            for start, seed in zip(edges, seeds, strict=True):
                if seed is None:
                    rows.append([None] * len(parameters))
                    continue
                found = torch.autograd.grad([start], parameters, [seed], retain_graph=True, allow_unused=True)
                rows.append(list(found))
            return rows

        return rows_of


class _Leaving:
    """A hook on a node of a head that consumes something shared."""

    def __init__(self, known: weakref.ref[_Interception], objectives: dict[int, int]) -> None:
        self._known, self._objectives = known, objectives

    def __call__(self, gradients: Gradients, _: Gradients) -> Gradients | None:
        interception = self._known()
        return None if interception is None else interception.leave(gradients, self._objectives)


class _Arriving:
    """A hook on the node that made the one feature."""

    def __init__(self, known: weakref.ref[_Interception]) -> None:
        self._known = known

    def __call__(self, gradients: Gradients) -> Gradients | None:
        interception = self._known()
        return None if interception is None else interception.arrive(gradients)

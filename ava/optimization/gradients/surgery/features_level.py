"""The gradient of each objective with respect to the features that heads share, in one ordinary backward pass.

Features are what heads consume of the shared part. The engine runs all heads before it goes on into the shared part;
hooks on the nodes that consume features keep each objective's gradient apart, and a hook on the node that made them
replaces the sum by the reconciled one. Heads get their own gradients, and the shared part is gone through once:

    loss_a -> head a --row a--> | features: sum_i w_i row_i | -> trunk
    loss_b -> head b --row b--> |                           |

With T features of B samples, that is all the memory it takes: no gradient of a parameter exists more than once.

Reference: Sener & Koltun 2018, section 3.3, https://arxiv.org/abs/1810.04650
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from ava.errors import InputError
from ava.optimization.gradients.surgery.cuts import cut, overlap
from ava.optimization.gradients.surgery.graph import SHARED, Entry, Gradients, SharedGraph, by_consumer, removed

Place = tuple[Node, int]
"""A feature: the node that made it, and which of its outputs it is."""

Rows = list[list[Tensor | None]]

_REMEDY = "Use level=parameters."


class FeatureRows:
    """Collects T rows in one backward pass, and puts their combination in their place.

    Args:
        graph: of the losses.
        reconcile: T lists of K features' gradients, None where an objective does not consume one -> K combined.

    Raises:
        InputError: the objectives share no feature, or one of them none with any other, or each reads its own part.
    """

    def __init__(self, graph: SharedGraph, reconcile: Callable[[Rows], Sequence[Tensor | None]]) -> None:
        self._entries = [entry for entry in graph.entries if not entry.is_parameter]
        self.places: list[Place] = list(dict.fromkeys((entry.node, entry.output) for entry in self._entries))
        _refuse_strangers(graph, self._entries)
        self._names, self._reconcile = graph.names, reconcile
        self._index = {place: index for index, place in enumerate(self.places)}
        self._rows: Rows = [[None] * len(self.places) for _ in graph.names]
        self._combined: Sequence[Tensor | None] = []
        self._is_fed = [False] * len(self.places)
        self._goes_on = _consumed_within(graph, self._index)

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """One backward pass of all losses within reconciles them."""
        groups = by_consumer(self._entries, parameters=False)
        self._waiting_for = len(groups)
        with removed(
            [node.register_hook(self._keep(entries)) for node, entries in groups.items()]
            + [node.register_prehook(self._replace(node)) for node in {node for node, _ in self.places}]
        ):
            yield

    def _keep(self, entries: list[Entry]) -> Callable[[Gradients, Gradients], Gradients]:
        def hook(gradients: Gradients, _: Gradients) -> Gradients:
            passed = list(gradients)
            for entry in entries:
                gradient = gradients[entry.slot]
                if gradient is not None:
                    passed[entry.slot] = self._add(entry, gradient)
            self._waiting_for -= 1
            if self._waiting_for == 0:
                self._combined = self._reconcile(self._rows)
                self._rows = []
            return tuple(passed)

        return hook

    def _add(self, entry: Entry, gradient: Tensor) -> Tensor | None:
        """Keep a gradient apart; what goes on in its place, which must be a tensor once so that it can be replaced."""
        index = self._index[entry.node, entry.output]
        row = self._rows[entry.objective]
        known = row[index]
        row[index] = gradient if known is None else known + gradient
        if self._is_fed[index]:
            return None
        self._is_fed[index] = True
        return torch.zeros_like(gradient) if self._goes_on[index] else gradient

    def _replace(self, node: Node) -> Callable[[Gradients], Gradients]:
        outputs = {output: index for (maker, output), index in self._index.items() if maker is node}

        def hook(gradients: Gradients) -> Gradients:
            if self._waiting_for:
                problem = "a head was computed before the shared part was, so its gradient comes too late."
                raise InputError(problem, hint="Compute the heads after the shared part, or use level=parameters.")
            passed = list(gradients)
            for output, index in outputs.items():
                received, combined = passed[output], self._combined[index]
                if received is not None and combined is not None:
                    passed[output] = received + combined if self._goes_on[index] else combined
            return tuple(passed)

        return hook


def values(places: Sequence[Place], consumers: Sequence[Entry], given: Sequence[Tensor]) -> list[Tensor]:
    """What the features are, from what was given or what the graph saved of them.

    Args:
        places: of the features.
        consumers: the edges that lead to them.
        given: tensors, among them features, as the model computed them.

    Raises:
        InputError: one of them is found nowhere.
    """
    found = {(tensor.grad_fn, tensor.output_nr): tensor.detach() for tensor in given}
    for node in {node for node, _ in places} | {entry.consumer for entry in consumers}:
        for saved in _saved(node):
            found.setdefault((saved.grad_fn, saved.output_nr), saved.detach())
    missing = [node.name() for node, output in places if (node, output) not in found]
    if missing:
        problem = f"the method needs the values of the features, and those made by {missing[0]} were not kept."
        raise InputError(
            problem, hint="Give them: `backward(losses, weight, features=[...])`, or use level=parameters."
        )
    return [found[place] for place in places]


def _saved(node: Any) -> list[Tensor]:
    """Tensors that a node saved for its backward pass."""
    names = [name for name in dir(node) if name.startswith("_saved_")]
    return [saved for name in names if isinstance(saved := getattr(node, name), Tensor)]


def _refuse_strangers(graph: SharedGraph, entries: list[Entry]) -> None:
    """Features of which every objective has its own say nothing about conflicts."""
    if graph.starts:
        problem = f"the loss of objective {graph.names[graph.starts[0]]!r} is a part of another's, or the same."
        raise InputError(problem, hint=_REMEDY)
    if not entries:
        raise InputError("the objectives share parameters at most, but no features.", hint=_REMEDY)
    consuming: dict[Place, list[Entry]] = {}
    for entry in entries:
        consuming.setdefault((entry.node, entry.output), []).append(entry)
    met = set().union(*(_meeting(consumers) for consumers in consuming.values()))
    for objective in sorted({entry.objective for entry in entries} - met):
        graph.refuse_joint()
        problem = f"objective {graph.names[objective]!r} reads no part of the features that another reads too."
        raise InputError(problem, hint=_REMEDY)


def _meeting(consumers: list[Entry]) -> set[int]:
    """The objectives that read something of one feature which another reads too."""
    parts = [(entry.objective, cut(entry.consumer)) for entry in consumers]
    return {
        objective
        for objective, part in parts
        if any(other != objective and overlap(part, theirs) for other, theirs in parts)
    }


def _consumed_within(graph: SharedGraph, index: dict[Place, int]) -> list[bool]:
    """Whether the shared part consumes a feature itself, on the way to another."""
    consumed = [False] * len(index)
    for node, owner in graph.owners.items():
        if owner == SHARED:
            for child, output in graph.children[node]:
                if child is not None and (child, output) in index:
                    consumed[index[child, output]] = True
    return consumed

"""Which part of the autograd graph several losses share, and the edges by which each loss enters it.

A node belongs to an objective that alone reaches it, and is shared where at least two do. Whatever stands below a
shared node is shared, so each objective's gradient enters the shared part exactly once on every path: over an edge
from a node of its own to a shared one, or where its loss itself is shared. Weighing those entries by w_i gives every
shared parameter sum_i w_i g_i and leaves the heads their own gradient, in one ordinary backward pass:

    graph = divide({"class": loss_a, "parity": loss_b})
    with graph.weighed([0.5, 1.5]):
        torch.autograd.backward([loss_a, loss_b], graph.seeds([0.5, 1.5]))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from ava.errors import InputError

SHARED = -1
"""In place of an objective: at least two."""

Gradients = tuple[Tensor | None, ...]

_JOINT = {
    "CompiledFunctionBackward": "Do not compile the network.",
    "_DDPSinkBackward": "Wrap the network without find_unused_parameters and static_graph.",
}


@dataclass(frozen=True)
class Entry:
    """An edge by which one objective's gradient enters the shared part.

    Attributes:
        objective: whose.
        consumer: the node of its own from which the edge leads.
        slot: which of the consumer's gradients, as its hooks are given them.
        node: the shared node to which it leads.
        output: which of that node's outputs was consumed.
    """

    objective: int
    consumer: Node
    slot: int
    node: Node
    output: int

    @property
    def is_parameter(self) -> bool:
        """Whether a parameter was consumed, and not something computed."""
        return is_leaf(self.node)


@dataclass(frozen=True)
class SharedGraph:
    """The graph of T losses, divided. It keeps the graph alive: drop it with the losses.

    Attributes:
        names: of the objectives.
        owners: node -> its objective, or `SHARED`.
        children: node -> the nodes and outputs that it consumed, by slot.
        entries: the edges into the shared part.
        starts: objectives whose loss itself is shared: part of another, or the same.
        roots: (T,) the nodes that made the losses.
    """

    names: tuple[str, ...]
    owners: dict[Node, int]
    children: dict[Node, tuple[tuple[Node | None, int], ...]]
    entries: list[Entry] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    roots: tuple[Node, ...] = ()

    def leaves(self, owner: int) -> list[Tensor]:
        """The parameters, and other leaves that require gradients, of one objective or of `SHARED`."""
        return [variable(node) for node, holder in self.owners.items() if holder == owner and is_leaf(node)]

    def seeds(self, weights: Sequence[float]) -> list[float]:
        """What each loss is to be multiplied with beside `weighed`: its weight where the loss itself is shared."""
        return [weight if index in self.starts else 1.0 for index, weight in enumerate(weights)]

    def refuse_joint(self) -> None:
        """Refuse nodes that carry heads and shared part together, so that nobody can tell them apart.

        Raises:
            InputError: the network is compiled as a whole, or looked through for unused parameters by DDP.
        """
        for node, owner in self.owners.items():
            remedy = _JOINT.get(type(node).__name__) if owner == SHARED else None
            if remedy is not None:
                problem = f"the objectives' graph is one node, {type(node).__name__}, which no surgery can divide."
                raise InputError(problem, hint=remedy)

    @contextmanager
    def weighed(self, weights: Sequence[float], parameters: bool = True) -> Iterator[None]:
        """Backward passes within multiply each objective's gradient by its weight where it enters the shared part.

        Args:
            weights: (T,) by objective.
            parameters: also where a head consumes a shared parameter itself (tied weights).
        """
        handles = []
        for consumer, entries in by_consumer(self.entries, parameters).items():
            factors = {entry.slot: weights[entry.objective] for entry in entries}
            handles.append(consumer.register_hook(_Multiply(factors)))
        with removed(handles):
            yield


def divide(losses: Mapping[str, Tensor]) -> SharedGraph:
    """Find what several losses share; about one microsecond a node.

    Args:
        losses: objective -> its loss, 0-dim, with the graph that made it.

    Raises:
        InputError: a loss does not depend on anything that requires gradients.
    """
    roots = tuple(root(name, loss) for name, loss in losses.items())
    graph = SharedGraph(tuple(losses), {}, {}, roots=roots)
    met: list[Node] = []
    for objective, node in enumerate(roots):
        met += _claim(graph, node, objective)
    _share(graph, met)
    graph.starts.extend(index for index, node in enumerate(roots) if graph.owners[node] == SHARED)
    for node, owner in graph.owners.items():
        if owner != SHARED:
            for slot, (child, output) in enumerate(graph.children[node]):
                if child is not None and graph.owners[child] == SHARED:
                    graph.entries.append(Entry(owner, node, slot, child, output))
    return graph


def root(name: str, loss: Tensor) -> Node:
    """The node that made a loss.

    Raises:
        InputError: it is no tensor of a single number, or does not depend on anything that requires gradients.
    """
    if not isinstance(loss, Tensor):
        problem = f"the loss of objective {name!r} must be a tensor, and is of type {type(loss).__name__}."
        raise InputError(problem, hint="Leave it out of the losses if it is a constant.")
    if loss.dim():
        problem = f"the loss of objective {name!r} must be one number, and has shape {tuple(loss.shape)}."
        raise InputError(problem, hint="Sum or average it over its samples.")
    if loss.grad_fn is None:
        problem = f"the loss of objective {name!r} depends on no parameter that requires gradients."
        raise InputError(problem, hint="Leave it out of the losses, or check what is detached or frozen.")
    return loss.grad_fn


def is_leaf(node: Node) -> bool:
    """Whether the node only collects the gradient of a leaf tensor."""
    return type(node).__name__ == "AccumulateGrad"


def variable(node: Node) -> Tensor:
    """The leaf tensor whose gradient the node collects; under FSDP the whole one, not the shard."""
    leaf: Tensor = node.variable  # type: ignore[attr-defined]
    return leaf


def by_consumer(entries: Sequence[Entry], parameters: bool) -> dict[Node, list[Entry]]:
    """Entries by the node from which they lead, with or without those into parameters."""
    found: dict[Node, list[Entry]] = {}
    for entry in entries:
        if parameters or not entry.is_parameter:
            found.setdefault(entry.consumer, []).append(entry)
    return found


@contextmanager
def removed(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    """Remove hooks in the end, whatever happens."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _claim(graph: SharedGraph, start: Node, objective: int) -> list[Node]:
    """Give what no earlier objective reaches to this one; where it meets what an earlier one has."""
    met, waiting = [], [start]
    while waiting:
        node = waiting.pop()
        if node in graph.owners:
            if graph.owners[node] != objective:
                met.append(node)
            continue
        graph.owners[node] = objective
        graph.children[node] = children = node.next_functions
        waiting.extend(child for child, _ in children if child is not None)
    return met


def _share(graph: SharedGraph, met: list[Node]) -> None:
    """Everything below a node where two objectives met is shared."""
    waiting = list(met)
    while waiting:
        node = waiting.pop()
        if graph.owners[node] != SHARED:
            graph.owners[node] = SHARED
            waiting.extend(child for child, _ in graph.children[node] if child is not None)


class _Multiply:
    """A hook that multiplies gradients that leave a node."""

    def __init__(self, factors: dict[int, float]) -> None:
        self._factors = {slot: factor for slot, factor in factors.items() if factor != 1.0}

    def __call__(self, gradients: Gradients, _: Any) -> Gradients:
        """The node's gradients, by slot."""
        return tuple(
            gradient * self._factors[slot] if gradient is not None and slot in self._factors else gradient
            for slot, gradient in enumerate(gradients)
        )

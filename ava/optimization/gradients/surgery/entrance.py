"""Where the gradients of several losses enter what they share, and which parameters lie nearest to that place.

Nodes of the autograd graph are numbered as they are made, so walking the shared part from its entries in falling order
meets the last layers first. A layer is counted by its matrices: a gradient of biases and of norms' scales alone says
little about the gradient of all parameters.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from torch import Tensor
from torch.autograd.graph import Node

from ava.optimization.gradients.surgery.graph import SharedGraph, is_leaf, variable


def last_parameters(graph: SharedGraph, among: Collection[int], num_layers: int) -> list[Tensor]:
    """The parameters of two or more dimensions that the last shared layers have.

    Args:
        graph: of the losses.
        among: ids of the parameters that count.
        num_layers: how many of them to find.

    Returns:
        `num_layers` parameters, the one nearest to the heads first; fewer where there are not as many; the last vectors
        where there is no matrix.
    """
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    waiting: list[tuple[int, int, Node]] = []
    seen: set[Node] = set()

    def wait_for(node: Node) -> None:
        if node not in seen:
            seen.add(node)
            if is_leaf(node):
                leaf = variable(node)
                if id(leaf) in among:
                    (matrices if leaf.dim() > 1 else vectors).append(leaf)
            else:
                heapq.heappush(waiting, (-node._sequence_nr(), len(seen), node))

    for node in [entry.node for entry in graph.entries] or graph.roots:
        wait_for(node)
    while waiting and len(matrices) < num_layers:
        for child, _ in graph.children[heapq.heappop(waiting)[2]]:
            if child is not None:
                wait_for(child)
    return matrices[:num_layers] or vectors[:num_layers]


def entrance(graph: SharedGraph) -> tuple[Node, int] | None:
    """The one feature by which all objectives enter the shared part; None where there are more ways in."""
    places = {(entry.node, entry.output) for entry in graph.entries}
    if graph.starts or len(places) != 1 or any(entry.is_parameter for entry in graph.entries):
        return None
    return places.pop()

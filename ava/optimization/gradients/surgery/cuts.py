"""Which part of a tensor a node of the autograd graph takes: `x[:, 3]`, `x[:, 2:5]`, or all of it."""

from __future__ import annotations

from typing import Any

from torch.autograd.graph import Node

_WORD = 2**64
"""The graph keeps negative places as unsigned numbers of 64 bits."""

Cut = tuple[int, int, int] | None
"""(dimension, first, one past the last); None for all."""


def cut(consumer: Node) -> Cut:
    """The part that is taken where the node is an index or a slice along one dimension."""
    node: Any = consumer
    if node.name() not in ("SelectBackward0", "SliceBackward0"):
        return None
    sizes = node._saved_self_sym_sizes
    dim = _place(node._saved_dim, len(sizes))
    if node.name() == "SelectBackward0":
        first = _place(node._saved_index, int(sizes[dim]))
        return dim, first, first + 1
    first, last = (_place(place, int(sizes[dim])) for place in (node._saved_start or 0, _end(node, int(sizes[dim]))))
    return dim, first, min(last, int(sizes[dim]))


def overlap(one: Cut, other: Cut) -> bool:
    """Whether two parts may have an element in common."""
    if one is None or other is None or one[0] != other[0]:
        return True
    return max(one[1], other[1]) < min(one[2], other[2])


def _end(node: Any, size: int) -> int:
    return size if node._saved_end is None else int(node._saved_end)


def _place(place: int, size: int) -> int:
    """Counted from the front."""
    signed = int(place) - _WORD if place >= _WORD // 2 else int(place)
    return signed + size if signed < 0 else signed

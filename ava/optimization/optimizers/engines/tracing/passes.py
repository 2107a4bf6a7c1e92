"""When what is computed: the passes over memory that a recorded sentence needs, and what each reads, sums and writes.

Pass k gathers the reductions whose arguments have level k. Between two passes, what is uniform, a row or a column is
worked out from them. The last pass writes. A dense slot whose new value a later pass needs is written as early
as it is known, and read back, where that moves fewer bytes than working it out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ava.optimization.optimizers.engines.tracing.graph import Graph, Node

REDUCTIONS = frozenset({"sum", "row_mean", "col_mean", "total"})


@dataclass(frozen=True)
class Pass:
    """One walk over all elements.

    Attributes:
        sums: reductions that it gathers.
        writes: outputs of one value an element that it stores, by name.
        elements: the element nodes it computes, in order.
        reread: element nodes that it takes from a slot written in an earlier pass, with the slot's name.
    """

    sums: list[Node]
    writes: dict[str, Node]
    elements: list[Node]
    reread: dict[Node, str]


@dataclass(frozen=True)
class Schedule:
    """All passes.

    Attributes:
        passes: in order.
        between: for each level, the uniform, row and column nodes worked out before the pass of that number; the
            last entry stands behind the last pass.
        results: outputs that are not one value an element, by name.
    """

    passes: list[Pass]
    between: list[list[Node]]
    results: dict[str, Node]


def schedule(graph: Graph, dense: Iterable[str]) -> Schedule:
    """Plan the passes of a graph.

    Args:
        graph: the recorded sentence.
        dense: slots stored as they are computed, which may be written early.
    """
    changed = {name: node for name, node in graph.outputs.items() if not _untouched(name, node)}
    live = reachable(changed.values(), frozenset())
    sums = [node for node in graph.nodes if node in live and node.op in REDUCTIONS]
    elements = {name: node for name, node in changed.items() if node.extent == "element"}
    results = {name: node for name, node in changed.items() if name not in elements}
    last = max([node.level for node in elements.values()] + [node.level - 1 for node in sums], default=0)
    writes = dict.fromkeys(elements, last)
    _write_early([name for name in dense if name in elements], elements, sums, writes, last)
    passes = [_pass(number, elements, sums, writes, last) for number in range(last + 1)]
    small = [node for node in graph.nodes if node in live and node.extent != "element"]
    between = [[node for node in small if node.level == level] for level in range(last + 2)]
    return Schedule(passes, between, results)


def _write_early(
    names: list[str], elements: dict[str, Node], sums: list[Node], writes: dict[str, int], last: int
) -> None:  # fmt: skip
    """Store slots in the pass that first knows them, all together or one by one, where that moves fewer bytes."""
    movable = [name for name in names if elements[name].level < last]
    for chosen in (movable, *([name] for name in movable)):
        early = writes | {name: elements[name].level for name in chosen}
        right = all(_is_new(name, elements, sums, early, last) for name in chosen)
        if right and _traffic(elements, sums, early, last) < _traffic(elements, sums, writes, last):
            writes.update(early)


def _is_new(name: str, elements: dict[str, Node], sums: list[Node], writes: dict[str, int], last: int) -> bool:
    """Whether no pass after the one that stores a slot needs its old value."""
    later = range(writes[name] + 1, last + 1)
    return all(name not in _inputs(_pass(number, elements, sums, writes, last).elements) for number in later)


def _untouched(name: str, node: Node) -> bool:
    return node.op == "input" and node.name == name


def _traffic(elements: dict[str, Node], sums: list[Node], writes: dict[str, int], last: int) -> int:
    """Reads and writes an element over all passes."""
    total = 0
    for number in range(last + 1):
        one = _pass(number, elements, sums, writes, last)
        total += len(_inputs(one.elements) | set(one.reread.values())) + len(one.writes)
    return total


def _inputs(nodes: Iterable[Node]) -> set[str]:
    return {node.name for node in nodes if node.op == "input"}


def _pass(number: int, elements: dict[str, Node], sums: list[Node], writes: dict[str, int], last: int) -> Pass:
    own_sums = [node for node in sums if node.level - 1 == number and node.args[0].extent == "element"]
    own_writes = {name: node for name, node in elements.items() if writes[name] == number}
    stored = {elements[name]: name for name, when in writes.items() if when < number}
    roots = [node.args[0] for node in own_sums] + list(own_writes.values())
    reached = reachable(roots, stored.keys(), inside="element")
    order = sorted((n for n in reached if n.extent == "element" and n not in stored), key=lambda n: n.number)
    return Pass(own_sums, own_writes, order, {node: name for node, name in stored.items() if node in reached})


def reachable(roots: Iterable[Node], cut: Iterable[Node], inside: str | None = None) -> set[Node]:
    """The roots and all that they are made from, as far as the cut, or as nodes of another extent than `inside`."""
    ends, seen, stack = set(cut), set(), list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node not in ends and inside in (None, node.extent):
            stack.extend(node.args)
    return seen

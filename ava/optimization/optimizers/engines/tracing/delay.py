"""When a reduction is gathered: in the last pass that is early enough."""

from __future__ import annotations

from ava.optimization.optimizers.engines.tracing.graph import Graph, Node


def delay(graph: Graph) -> Graph:
    """Gather each reduction in the last pass that is early enough, which has more of its argument at hand.

    LAMB's |p| is not needed before |u| is: gathered with it, the parameters are read once less.
    """
    levels = _latest_levels(graph)
    made: dict[Node, Node] = {}
    for node in graph.nodes:
        args = tuple(made[a] for a in node.args)
        level = max((a.level for a in args), default=0)
        if node.op in ("sum", "row_mean", "col_mean", "total") and node.args[0].extent == "element":
            level = levels.get(node, node.level)
        elif node.op == "total":
            level = node.level
        made[node] = Node(node.op, args, node.extent, level, node.name, node.is_flag, node.number)
    outputs = {name: made[node] for name, node in graph.outputs.items()}
    return Graph(list(made.values()), outputs, graph.slots, {name: made[node] for name, node in graph.totals.items()})


def _latest_levels(graph: Graph) -> dict[Node, int]:
    """For each uniform, row or column that something is made of: before which pass it has to be known."""
    latest: dict[Node, int] = {}
    for node in reversed(graph.nodes):
        deadline = node.level if node.extent == "element" or node.op == "total" else latest.get(node, node.level)
        for argument in node.args:
            if argument.extent != "element":
                latest[argument] = min(latest.get(argument, deadline), deadline)
    return latest

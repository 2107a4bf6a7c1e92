"""Where the kernel finds things: the columns of the tables that the host fills and the kernel reads."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch

from ava.optimization.optimizers.engines.native.storage import C_TYPES, Store
from ava.optimization.optimizers.engines.tracing.graph import Graph, Node
from ava.optimization.optimizers.engines.tracing.passes import REDUCTIONS, Schedule, schedule
from ava.optimization.optimizers.sentence import Sentence, own_slots
from ava.optimization.optimizers.storage.choice import codec_name

TENSOR_COLUMNS = (
    "N", "ROWS", "COLS", "SQUARE_COLS", "NUMBER", "FIRST_ITEM", "NUM_ITEMS", "UNIFORMS", "ROW_ARRAYS", "COL_ARRAYS",
    "P", "G", "STEP",
)  # fmt: skip
"""One row a parameter; the parts of its slots follow."""
ITEM_COLUMNS = ("TENSOR", "BEGIN", "END", "SUMS", "ROW_SUMS", "COL_SUMS", "SQUARE_ROWS", "SQUARE_COL_SUMS")
"""One row a piece of a parameter that a thread walks over; the last five are places in the scratch memory."""

FIRST_UNIFORMS = 8
"""Where the first parameter's uniforms stand in the scratch memory, behind its step in place 0."""


@dataclass
class Layout:
    """All that the printer and the host agree on.

    Attributes:
        graph: the recorded sentence.
        schedule: its passes.
        stores: slots of the parameter's shape, by name.
        small: slots that are rows, columns or single numbers -> their column of the table.
        inputs: hyperparameters, in the order in which the host passes them.
        common: slots that all parameters share, in that order.
        dtype: the parameters' type.
        rounds_at_random: whether parameters are.
        counts: whether parameters have a counter.
        places: uniform, row or column node -> its place among those of its extent.
    """

    graph: Graph
    schedule: Schedule
    stores: dict[str, Store]
    small: dict[str, int]
    inputs: list[str]
    common: list[str]
    dtype: torch.dtype
    rounds_at_random: bool
    counts: bool
    places: dict[Node, int] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """The C++ type that is computed in."""
        return "double" if self.dtype is torch.float64 else "float"

    @property
    def storage(self) -> str:
        """The C++ type of a parameter's element."""
        return C_TYPES[str(self.dtype)]

    @property
    def width(self) -> int:
        """Columns of the table of parameters."""
        return len(TENSOR_COLUMNS) + sum(len(s.parts) for s in self.stores.values()) + len(self.small)

    @property
    def totals(self) -> list[str]:
        """Names of the sums over all parameters."""
        return list(self.graph.totals)

    @property
    def breaks(self) -> list[int]:
        """The passes after which sums over all parameters have to be told."""
        return sorted({node.level for node in self.graph.totals.values()})

    def count(self, op: str) -> int:
        """How many reductions of a kind one pass gathers at most."""
        return max(sum(node.op in op.split() for node in one.sums) for one in self.schedule.passes)

    def num_places(self, extent: str) -> int:
        """How many uniforms, rows or columns are kept."""
        return sum(node.extent == extent for node in self.places)

    @property
    def num_factored(self) -> int:
        """Slots whose row and column sums are gathered as they are written."""
        return sum(store.codec == "factored" for store in self.stores.values())

    @functools.cached_property
    def shared(self) -> list[Node]:
        """Kept uniforms that follow from the step and the hyperparameters alone, in order."""
        found: dict[Node, bool] = {}
        for node in (node for level in self.schedule.between for node in level):
            inside = node.op == "constant" or (node.op == "input" and (node.name[:2] == "h." or node.name == "step"))
            made = bool(node.args) and node.op not in REDUCTIONS and all(found.get(a, False) for a in node.args)
            found[node] = node.extent == "uniform" and (inside or made)
        return [node for node, is_shared in found.items() if is_shared and node in self.places]

    @property
    def draws(self) -> bool:
        """Whether an element's place chooses random bits."""
        coded = any(store.codec in ("bf16", "int8") for store in self.stores.values())
        return coded or self.rounds_at_random or any(node.op == "random" for node in self.graph.nodes)

    @property
    def needs_matrix(self) -> bool:
        """Whether it matters where rows begin."""
        return bool(self.count("row_mean col_mean") or self.num_places("row") or self.num_places("column"))


def lay_out(
    graph: Graph, sentence: Sentence, state: str, dtype: torch.dtype, *, is_small: bool,
    rounds_at_random: bool, counts: bool,
) -> Layout:  # fmt: skip
    """Decide where everything is.

    Args:
        graph: the recorded sentence.
        sentence: the sentence itself.
        state: the option that names the codec.
        dtype: the parameters' type.
        is_small: whether the parameters are too small for 8 bits.
        rounds_at_random: whether 16-bit parameters are rounded at random.
        counts: whether parameters count their updates.
    """
    column, stores, small = len(TENSOR_COLUMNS), {}, {}
    for place, slot in enumerate(own_slots(sentence)):
        if slot.shape == "full":
            stores[slot.name] = Store(slot, codec_name(slot, state, is_small=is_small), column, place)
            column += len(stores[slot.name].parts)
        else:
            small[slot.name], column = column, column + 1
    wide = dtype in (torch.float32, torch.float64)
    plan = schedule(graph, [name for name, store in stores.items() if store.is_exact and wide])
    inputs = sorted({n.name for n in graph.nodes if n.op == "input" and (n.name[:2] == "h." or n.name == "grad_scale")})
    common = [slot.name for slot in graph.slots if slot.shape == "optimizer"]
    layout = Layout(graph, plan, stores, small, inputs, common, dtype, rounds_at_random, counts)
    counters: dict[str, int] = {}
    for node in (node for level in plan.between for node in level if _is_kept(node)):
        layout.places[node] = counters.get(node.extent, 0)
        counters[node.extent] = layout.places[node] + 1
    return layout


def _is_kept(node: Node) -> bool:
    """Whether a node's value is kept in the scratch memory: rows, columns, and uniforms that are worked out."""
    return node.extent in ("row", "column") or node.op not in ("input", "constant", "total")
